# The image has our programs only: no shell, no packages, no base image to trust. Run `make build` first, which makes bin/.
FROM scratch
COPY bin/bridge bin/collector bin/dbkeeper bin/llmgateway bin/lms bin/registrar bin/riskscorer bin/stubgemini bin/world /app/
USER 10001:10001
