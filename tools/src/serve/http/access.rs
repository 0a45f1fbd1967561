//! Who may ask: keys, hosts and origins.

use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use subtle::{Choice, ConstantTimeEq};

use crate::serve::refusal::Refusal;

/// Who may ask.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// Keys, one of which a request must have. None: no request needs one.
    pub keys: Vec<String>,
    /// Pages of other origins that may ask, such as `https://example.org`.
    pub origins: Vec<String>,
    /// Names by which the server may be called, besides its addresses and `localhost`.
    pub hosts: Vec<String>,
}

/// What can be had without a key: nothing of the model.
const OPEN: [&str; 2] = ["/", "/health"];

impl Access {
    /// Lets a request through.
    ///
    /// # Errors
    /// If it has no key that it needs, or a page sends it that may not.
    pub fn check(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), Refusal> {
        self.check_host(headers)?;
        self.check_origin(headers)?;
        if self.keys.is_empty() || OPEN.contains(&uri.path()) || self.has_key(headers) {
            return Ok(());
        }
        let message = "this server needs a key: send the header `Authorization: Bearer KEY`";
        Err(Refusal::with(StatusCode::UNAUTHORIZED, "invalid_api_key", message))
    }

    /// A page of any origin can have its own name lead to this machine, and is then at home here for a browser:
    /// only the name tells.
    fn check_host(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let host =
            headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
        let name = host_name(host);
        let is_address = name.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok();
        let is_known = self.hosts.iter().any(|known| known.eq_ignore_ascii_case(name));
        if is_address || is_known || name.eq_ignore_ascii_case("localhost") || !self.keys.is_empty()
        {
            return Ok(());
        }
        let message = "this server is not known by that name; name it with --allow-host";
        Err(Refusal::with(StatusCode::FORBIDDEN, "unknown_host", message))
    }

    /// A page of another origin may not ask, even what it could not read the answer of.
    fn check_origin(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let Some(origin) = headers.get(header::ORIGIN) else { return Ok(()) };
        let own = headers.get(header::HOST).map(HeaderValue::as_bytes).unwrap_or_default();
        let is_own = [&b"http://"[..], b"https://"]
            .iter()
            .any(|scheme| origin.as_bytes().strip_prefix(*scheme) == Some(own));
        if is_own || self.allows(origin) {
            return Ok(());
        }
        let message = "pages of this origin may not ask; name it with --cors-origin";
        Err(Refusal::with(StatusCode::FORBIDDEN, "unknown_origin", message))
    }

    fn allows(&self, origin: &HeaderValue) -> bool {
        self.origins.iter().any(|allowed| allowed.as_bytes() == origin.as_bytes())
    }

    /// Compares with every key, to its end.
    fn has_key(&self, headers: &HeaderMap) -> bool {
        let given = headers.get(header::AUTHORIZATION).map(HeaderValue::as_bytes);
        let given = given.and_then(|value| {
            let (scheme, key) = value.split_at_checked(7)?;
            scheme.eq_ignore_ascii_case(b"bearer ").then_some(key)
        });
        let Some(given) = given else { return false };
        // Digests are of one length, so not even that of a key shows.
        let given = blake3::hash(given);
        let is_any = self.keys.iter().fold(Choice::from(0), |found, key| {
            found | blake3::hash(key.as_bytes()).as_bytes().ct_eq(given.as_bytes())
        });
        is_any.into()
    }

    /// What a browser needs to hear before, and with, an answer to a page of another origin.
    pub fn cors(&self, asked: &HeaderMap, headers: &mut HeaderMap) {
        if self.origins.is_empty() {
            return;
        }
        headers.insert(header::VARY, HeaderValue::from_static("origin"));
        if let Some(origin) = asked.get(header::ORIGIN).filter(|origin| self.allows(origin)) {
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        }
    }

    /// Whether a request only asks what it may ask, as a browser does for a page.
    pub fn is_preflight(method: &Method, headers: &HeaderMap) -> bool {
        method == Method::OPTIONS && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
    }
}

/// A host's name without its port.
fn host_name(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(access: &Access, path: &'static str, headers: &[(&'static str, &str)]) -> u16 {
        let headers = headers
            .iter()
            .map(|&(name, value)| (name.parse().unwrap(), HeaderValue::from_str(value).unwrap()));
        let checked = access.check(&Uri::from_static(path), &headers.collect());
        checked.map_or_else(|refusal| refusal.status.as_u16(), |()| 200)
    }

    #[test]
    fn a_key_is_needed_where_there_are_keys() {
        let access = Access { keys: vec!["one".into(), "two".into()], ..Default::default() };
        let with = |value| check(&access, "/v1/models", &[("authorization", value)]);
        assert_eq!((with("Bearer one"), with("bearer two")), (200, 200));
        for wrong in ["Bearer ", "Bearer on", "Bearer onee", "Basic one", "one", "Bearer  one", ""]
        {
            assert_eq!(with(wrong), 401, "{wrong}");
        }
        assert_eq!(check(&access, "/metrics", &[]), 401);
        assert_eq!((check(&access, "/", &[]), check(&access, "/health", &[])), (200, 200));
    }

    #[test]
    fn only_names_that_are_its_own_reach_an_open_server() {
        let access = Access { hosts: vec!["box.lan".into()], ..Default::default() };
        for (host, status) in [
            ("127.0.0.1:8080", 200),
            ("[::1]:8080", 200),
            ("192.168.1.3", 200),
            ("LOCALHOST:1", 200),
            ("box.lan:8080", 200),
            ("evil.example:8080", 403),
            ("127.0.0.1.evil.example", 403),
            ("localhost.evil.example", 403),
            ("", 403),
        ] {
            assert_eq!(check(&access, "/v1/models", &[("host", host)]), status, "{host}");
        }
    }

    #[test]
    fn pages_of_other_origins_may_not_ask() {
        let mut access =
            Access { origins: vec!["https://app.example".into()], ..Default::default() };
        let from = |access: &Access, origin| {
            check(access, "/v1/completions", &[("host", "127.0.0.1:80"), ("origin", origin)])
        };
        assert_eq!(from(&access, "http://127.0.0.1:80"), 200);
        assert_eq!(from(&access, "https://app.example"), 200);
        for origin in
            ["null", "https://evil.example", "http://127.0.0.1:81", "https://app.example.evil"]
        {
            assert_eq!(from(&access, origin), 403, "{origin}");
        }
        let asked = HeaderMap::from_iter([(
            header::ORIGIN,
            HeaderValue::from_static("https://app.example"),
        )]);
        let mut headers = HeaderMap::new();
        access.cors(&asked, &mut headers);
        assert_eq!(headers[header::ACCESS_CONTROL_ALLOW_ORIGIN], "https://app.example");
        access.origins.clear();
        headers.clear();
        access.cors(&asked, &mut headers);
        assert!(headers.is_empty());
    }
}
