// Package gatewayapi is what the LLM gateway's routes are called. Their bodies are in package lesson.
package gatewayapi

import "example.org/security-training/services/topology"

const (
	// RouteGenerate takes a lesson.Request and answers with a lesson.Written.
	RouteGenerate topology.Route = "POST /v1/generate"

	// RouteModel is Gemini's own, as https://ai.google.dev/api/generate-content has it. A workload that serves it stands
	// in for Gemini.
	RouteModel topology.Route = "POST /v1beta/models/{call}"
)
