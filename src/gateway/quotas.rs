//! Quotas.

use axum::Json;
use axum::response::IntoResponse as _;
use dms_client::v1 as pb;

use super::Answer;
use super::json::Quotas;
use super::target::Target;
use super::upstream::Upstream;

/// `GET /quotas/dms` and `GET /quotas`
pub(super) async fn show(upstream: Upstream, target: Target) -> Answer {
    let request = pb::GetQuotasRequest { project_id: target.project_id };
    let answer = upstream.queues().get_quotas(upstream.request(request)?).await?.into_inner();
    Ok(Json(Quotas::from(&answer.quotas[..])).into_response())
}
