//! HTTP faces: /livez, /readyz, /metrics, `/api/v1/status`; later the dashboard and the REST API.
//! Called by the roles' start-up (`strata up`, `coordinator`, `sidecar`).
//! Never changes state except through the gRPC services' own functions.
