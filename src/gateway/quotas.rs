//! Quotas.

use axum::Json;
use axum::response::IntoResponse as _;

use super::Answer;
use super::json::Quotas;
use super::target::Target;
use super::upstream::Upstream;
use crate::proto::v1 as pb;

/// `GET /quotas/dms` and `GET /quotas`
pub async fn show(upstream: Upstream, target: Target) -> Answer {
    let request = pb::GetQuotasRequest { project_id: target.project_id };
    let answer = upstream.queues().get_quotas(upstream.request(request)?).await?.into_inner();
    Ok(Json(Quotas::from(&answer.quotas[..])).into_response())
}
