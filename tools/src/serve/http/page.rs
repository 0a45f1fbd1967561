//! The page at `/`, and the description of the interface.

use std::hash::{BuildHasher, RandomState};

use axum::http::header;
use axum::response::{IntoResponse, Response};

const PAGE: &str = include_str!("page.html");
const OPENAPI: &str = include_str!("openapi.json");

/// The page. Its own script and style run, and nothing else: they carry a number that nobody can know before.
pub async fn page() -> Response {
    let number = || RandomState::new().hash_one(());
    let nonce = format!("{:016x}{:016x}", number(), number());
    let policy = format!(
        "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8".to_owned()),
        (header::CONTENT_SECURITY_POLICY, policy),
        (header::CACHE_CONTROL, "no-store".to_owned()),
    ];
    (headers, PAGE.replace("NONCE", &nonce)).into_response()
}

/// The description of the interface.
pub async fn openapi() -> Response {
    let text = OPENAPI.replace("VERSION", env!("CARGO_PKG_VERSION"));
    ([(header::CONTENT_TYPE, "application/json")], text).into_response()
}
