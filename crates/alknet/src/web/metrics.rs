//! The node's counters, for Prometheus.

use std::sync::OnceLock;

use alknet_core::AuthContext;
use alknet_http::Conceal;
use axum::{
    Extension,
    http::header,
    response::{IntoResponse, Response},
};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};

/// What admits to the counters.
const SCOPE: &str = "metrics";
/// The text format of Prometheus.
const FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The recorder is one for the whole process, as the libraries that count expect it.
static RECORDER: OnceLock<Option<PrometheusHandle>> = OnceLock::new();

/// Begins to count.
pub(crate) fn record() {
    RECORDER.get_or_init(|| {
        let recorder = PrometheusBuilder::new().build_recorder();
        let handle = recorder.handle();
        describe(&recorder);
        metrics::set_global_recorder(recorder).is_ok().then_some(handle)
    });
}

fn describe(recorder: &dyn metrics::Recorder) {
    let counters = [
        ("alknet_handshakes_total", "Handshakes that began or were turned away."),
        ("alknet_sessions_total", "Sessions that began."),
        ("alknet_refusals_total", "Sessions that were refused, by reason."),
        ("alknet_authentication_failures_total", "Credentials that did not hold."),
        ("alknet_bans_total", "Addresses turned away for failures to authenticate."),
        ("alknet_revocations_total", "Logins ended because their credential was."),
    ];
    for (name, text) in counters {
        recorder.describe_counter(name.into(), None, text.into());
    }
    recorder.describe_gauge("alknet_sessions".into(), None, "Sessions in progress.".into());
}

/// `GET /alknet/metrics`: for callers with the scope `metrics`.
pub(super) async fn show(Extension(auth): Extension<AuthContext>) -> Response {
    match RECORDER.get() {
        Some(Some(handle)) if auth.allows(SCOPE) => {
            handle.run_upkeep();
            let headers = [(header::CONTENT_TYPE, FORMAT), (header::CACHE_CONTROL, "no-store")];
            (headers, handle.render()).into_response()
        }
        _ => Conceal.into_response(),
    }
}
