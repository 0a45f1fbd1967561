//! The parameters of a request: each is taken by its name, and one that nobody takes is refused.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::serve::refusal::Refusal;

/// The parameters of a request that were not taken yet. One that is null is as if it were not there.
#[derive(Debug)]
pub struct Fields(BTreeMap<String, Box<RawValue>>);

impl Fields {
    /// Those of a body.
    ///
    /// # Errors
    /// If it is no JSON object.
    pub fn parse(body: &[u8]) -> Result<Self, Refusal> {
        let parsed = serde_json::from_slice(body);
        let mut fields: BTreeMap<String, Box<RawValue>> = parsed
            .map_err(|error| Refusal::bad(format!("the body is not a JSON object: {error}")))?;
        fields.retain(|_, value| value.get() != "null");
        Ok(Self(fields))
    }

    /// A parameter, if it is there.
    ///
    /// # Errors
    /// If it is of another type.
    pub fn take<T: for<'a> Deserialize<'a>>(
        &mut self,
        name: &'static str,
    ) -> Result<Option<T>, Refusal> {
        let Some(value) = self.0.remove(name) else { return Ok(None) };
        let value = serde_json::from_str(value.get());
        value.map(Some).map_err(|error| {
            // Where in the value it is counts from the value's own beginning, so it is left out.
            let error = error.to_string();
            let error = error.split(" at line ").next().unwrap_or_default();
            Refusal::param(name, format!("{name}: {error}"))
        })
    }

    /// A parameter that has to be there.
    ///
    /// # Errors
    /// If it is not, or of another type.
    pub fn need<T: for<'a> Deserialize<'a>>(&mut self, name: &'static str) -> Result<T, Refusal> {
        let missing = || Refusal::param(name, format!("{name} is missing"));
        self.take(name)?.ok_or_else(missing)
    }

    /// Refuses a parameter that programs send and this server does not have, for a reason that ends the sentence.
    /// `allowed` are values that ask for nothing.
    ///
    /// # Errors
    /// If it is there with another value.
    pub fn refuse(
        &mut self,
        name: &'static str,
        allowed: &[&str],
        reason: &str,
    ) -> Result<(), Refusal> {
        match self.0.remove(name) {
            Some(value) if !allowed.contains(&value.get()) => {
                let message = format!("{name} is not supported: {reason}");
                Err(Refusal {
                    code: Some("unsupported_parameter"),
                    ..Refusal::param(name, message)
                })
            }
            _ => Ok(()),
        }
    }

    /// All parameters were taken.
    ///
    /// # Errors
    /// If one is left, which this server does not know.
    pub fn finish(self) -> Result<(), Refusal> {
        let Some(name) = self.0.into_keys().next() else { return Ok(()) };
        let shown = cerebellum::terminal::name(&name).to_string();
        let message = format!("{shown} is no parameter that this server knows; leave it out");
        Err(Refusal { code: Some("unknown_parameter"), ..Refusal::param(name, message) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused<T>(result: Result<T, Refusal>) -> (String, String) {
        let Err(refusal) = result else { panic!("not refused") };
        (refusal.param.unwrap_or_default().into_owned(), refusal.message.into_owned())
    }

    #[test]
    fn each_parameter_is_taken_by_its_name() {
        let mut fields =
            Fields::parse(br#"{"n": 2, "seed": null, "echo": false, "x\u0007": 1}"#).unwrap();
        assert_eq!(fields.take::<usize>("n").unwrap(), Some(2));
        assert_eq!(fields.take::<u64>("seed").unwrap(), None);
        fields.refuse("echo", &["false"], "").unwrap();
        let (param, message) = refused(fields.finish());
        assert_eq!((&param[..], message.contains('\u{7}')), ("x\u{7}", false));
    }

    #[test]
    fn what_is_wrong_is_said_of_which_parameter() {
        let mut fields = Fields::parse(br#"{"n": "two", "suffix": "s"}"#).unwrap();
        let (param, message) = refused(fields.take::<usize>("n"));
        assert_eq!(param, "n");
        assert_eq!(message, "n: invalid type: string \"two\", expected usize");
        assert_eq!(refused(fields.need::<usize>("n")).1, "n is missing");
        let (param, message) = refused(fields.refuse("suffix", &["\"\""], "this is not for it"));
        assert_eq!(
            (&param[..], &message[..]),
            ("suffix", "suffix is not supported: this is not for it")
        );
        for body in ["", "[]", "3", "{", "{}x"] {
            assert!(
                refused(Fields::parse(body.as_bytes())).1.contains("not a JSON object"),
                "{body}"
            );
        }
    }
}
