//! The pages: what each path answers.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderValue, StatusCode};
use axum::middleware;
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use serde::Serialize;
use serde_json::json;

use super::{AdminSource, guard};
use crate::error::Error;
use crate::telemetry::Metrics;

/// Version of every JSON document; a change that breaks a reader raises it.
const SCHEMA: u32 = 1;

#[derive(Clone)]
struct Shared {
    source: Arc<dyn AdminSource>,
    metrics: Arc<Metrics>,
}

pub fn routes(source: Arc<dyn AdminSource>, metrics: Arc<Metrics>, addr: SocketAddr) -> Router {
    Router::new()
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics_text))
        .route("/api/v1/status", get(status))
        .fallback(async || refusal(&Error::not_found("serving HTTP: there is no such page")))
        .layer(middleware::from_fn_with_state(addr, guard::same_origin))
        .with_state(Shared { source, metrics })
}

async fn readyz(State(shared): State<Shared>) -> Response {
    let checks = shared.source.checks().await;
    let ready = checks.iter().all(|check| check.problem.is_none());
    let code = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    document(code, &json!({ "schema": SCHEMA, "ready": ready, "checks": checks }))
}

async fn metrics_text(State(shared): State<Shared>) -> Response {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(CONTENT_TYPE, HeaderValue::from_static(kind))], shared.metrics.encode()).into_response()
}

#[derive(Serialize)]
struct StatusDocument {
    schema: u32,
    #[serde(flatten)]
    status: crate::proto::v1::Status,
}

async fn status(State(shared): State<Shared>) -> Response {
    match shared.source.status().await {
        Ok(status) => document(StatusCode::OK, &StatusDocument { schema: SCHEMA, status }),
        Err(error) => refusal(&error),
    }
}

/// An error as a JSON document, with the HTTP code of its kind.
pub fn refusal(error: &Error) -> Response {
    let code = StatusCode::from_u16(error.kind.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let detail = json!({ "kind": error.kind.name(), "message": error.message, "hint": error.hint });
    document(code, &json!({ "schema": SCHEMA, "error": detail }))
}

fn document(code: StatusCode, body: &impl Serialize) -> Response {
    (code, [(CACHE_CONTROL, HeaderValue::from_static("no-store"))], Json(body)).into_response()
}
