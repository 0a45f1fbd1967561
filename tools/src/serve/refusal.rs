//! Why a request gets no answer, in the form of OpenAI's errors.

use std::borrow::Cow;

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use cerebellum::Error;
use serde::Serialize;

/// Why a request gets no answer. Its text goes to the client, so it says nothing about the machine.
#[derive(Clone, Debug, PartialEq)]
pub struct Refusal {
    /// Of the answer.
    pub status: StatusCode,
    /// What is wrong, and what to do.
    pub message: Cow<'static, str>,
    /// The parameter at fault, if it is one.
    pub param: Option<Cow<'static, str>>,
    /// For programs.
    pub code: Option<&'static str>,
    /// In how many seconds to try again, if that helps.
    pub retry_after: Option<u64>,
}

impl Refusal {
    fn new(status: StatusCode, message: impl Into<Cow<'static, str>>) -> Self {
        Self { status, message: message.into(), param: None, code: None, retry_after: None }
    }

    /// The request is wrong.
    pub fn bad(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// A parameter is wrong.
    pub fn param(
        param: impl Into<Cow<'static, str>>,
        message: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self { param: Some(param.into()), ..Self::bad(message) }
    }

    /// Another status than that of a bad request.
    pub fn with(
        status: StatusCode,
        code: &'static str,
        message: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self { code: Some(code), ..Self::new(status, message) }
    }

    /// What is wrong concerns this parameter, unless it is known which one it is.
    #[must_use]
    pub fn about(mut self, param: &'static str) -> Self {
        if self.status == StatusCode::BAD_REQUEST && self.param.is_none() {
            self.param = Some(param.into());
        }
        self
    }

    /// Something is wrong with the server. Standard error says what, the answer does not.
    pub fn internal(reason: impl std::fmt::Display) -> Self {
        eprintln!("error: {}", cerebellum::terminal::text(&reason.to_string()));
        let message = "the server failed; its log says why";
        Self::with(StatusCode::INTERNAL_SERVER_ERROR, "internal_error", message)
    }

    /// The server is being stopped.
    pub fn stopping() -> Self {
        let message = "the server is being stopped; try again when it is back";
        Self::with(StatusCode::SERVICE_UNAVAILABLE, "stopping", message)
    }

    /// The name of the error's kind.
    fn kind(&self) -> &'static str {
        match self.status.as_u16() {
            401 => "authentication_error",
            403 => "permission_error",
            429 => "rate_limit_error",
            408 | 504 => "timeout_error",
            400..500 => "invalid_request_error",
            _ => "server_error",
        }
    }

    /// The JSON object.
    pub fn json(&self) -> String {
        #[derive(Serialize)]
        struct Outer<'a> {
            error: Inner<'a>,
        }
        #[derive(Serialize)]
        struct Inner<'a> {
            message: &'a str,
            r#type: &'static str,
            param: Option<&'a str>,
            code: Option<&'static str>,
        }
        let error = Inner {
            message: &self.message,
            r#type: self.kind(),
            param: self.param.as_deref(),
            code: self.code,
        };
        serde_json::to_string(&Outer { error }).expect("strings become JSON")
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::from(self.json()));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        let too_long =
            |message: String| Self { code: Some("context_length_exceeded"), ..Self::bad(message) };
        match error {
            Error::ContextFull { position, tokens, context } => too_long(format!(
                "{} tokens do not fit into the {context} positions of a request; shorten the text",
                position + tokens
            )),
            Error::TextTooLong { bytes, tokens, context, .. } => too_long(format!(
                "a text of {bytes} bytes has at least {tokens} tokens, more than the {context} positions of \
                 a request; shorten it"
            )),
            Error::Option { name, detail } => Self::param(name, format!("{name}: {detail}")),
            Error::TokenOutOfRange { .. } | Error::NoTokens | Error::Text(_) => {
                Self::bad(error.to_string())
            }
            Error::Constraint(_) => Self::param("response_format", error.to_string()),
            Error::Chat(_) => Self::param("messages", error.to_string()),
            error => Self::internal(error),
        }
    }
}
