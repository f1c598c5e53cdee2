# All our programs and nothing else: no shell, no packages, no base image to trust. `make build` makes bin/ first.
FROM scratch
COPY bin/bridge bin/collector bin/dbkeeper bin/llmgateway bin/lms bin/registrar bin/riskscorer bin/stubgemini bin/world /app/
USER 10001:10001
