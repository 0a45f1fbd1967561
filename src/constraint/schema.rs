//! JSON schemas whose numbers can be had exactly.

use serde_json::{Map, Number, Value};

use crate::error::{Error, Result};

/// Beyond this a binary64, which is what numbers of JSON are read as, does not hold all integers.
const LARGEST: u64 = 1 << 53;
/// How deep arrays and objects of a schema may lie in one another.
const DEPTH: usize = 100;

/// The schema without bounds that no number of 15 digits reaches.
///
/// # Errors
/// [`Error::Constraint`] if it is no schema, is too deep, or asks for numbers beyond 2^53.
pub(super) fn bounded(schema: &Value) -> Result<Value> {
    let schema = match schema {
        Value::Bool(true) => &Value::Object(Map::new()),
        Value::Object(_) => schema,
        _ => return fail("a JSON schema is an object, such as {\"type\": \"string\"}"),
    };
    check_depth(schema, DEPTH)?;
    let mut schema = schema.clone();
    bound(&mut schema)?;
    Ok(schema)
}

fn fail<T>(detail: impl Into<String>) -> Result<T> {
    Err(Error::Constraint(detail.into()))
}

fn check_depth(value: &Value, left: usize) -> Result<()> {
    let check = |part: &Value| match left.checked_sub(1) {
        None => fail(format!("the JSON schema has more than {DEPTH} levels; use $ref")),
        Some(left) => check_depth(part, left),
    };
    match value {
        Value::Array(parts) => parts.iter().try_for_each(check),
        Value::Object(parts) => parts.values().try_for_each(check),
        _ => Ok(()),
    }
}

fn bound(schema: &mut Value) -> Result<()> {
    match schema {
        Value::Array(schemas) => schemas.iter_mut().try_for_each(bound),
        Value::Object(keywords) => {
            keywords.retain(|keyword, value| !reaches_nothing(keyword, value));
            keywords.iter_mut().try_for_each(|(keyword, value)| match (keyword.as_str(), value) {
                // What is said about a value, but does not restrict it.
                ("default" | "examples", _) => Ok(()),
                ("const" | "enum", value) => check_value(keyword, value),
                (_, Value::Number(number)) => check_number(keyword, number),
                (_, value) => bound(value),
            })
        }
        _ => Ok(()),
    }
}

/// Whether it is a bound beyond all numbers that are made: so an int64 is described.
fn reaches_nothing(keyword: &str, value: &Value) -> bool {
    let Value::Number(number) = value else { return false };
    let sign = match keyword {
        "minimum" | "exclusiveMinimum" => -1.0,
        "maximum" | "exclusiveMaximum" => 1.0,
        _ => return false,
    };
    !is_exact(number) && number.as_f64().is_some_and(|number| number * sign > 0.0)
}

fn check_value(keyword: &str, value: &Value) -> Result<()> {
    match value {
        Value::Number(number) => check_number(keyword, number),
        Value::Array(values) => values.iter().try_for_each(|value| check_value(keyword, value)),
        Value::Object(values) => values.values().try_for_each(|value| check_value(keyword, value)),
        _ => Ok(()),
    }
}

fn check_number(keyword: &str, number: &Number) -> Result<()> {
    if is_exact(number) {
        return Ok(());
    }
    fail(format!(
        "the JSON schema cannot be used: {keyword:?}: {number} is beyond 2^53 = {LARGEST}, where readers of \
         JSON lose digits; make it a string"
    ))
}

fn is_exact(number: &Number) -> bool {
    let whole = number.as_u64().or_else(|| number.as_i64().map(i64::unsigned_abs));
    let float = || number.as_f64().is_some_and(|number| number.abs() <= LARGEST as f64);
    whole.map_or_else(float, |whole| whole <= LARGEST)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn numbers_beyond_what_is_exact_are_dropped_or_refused() {
        let int64 = json!({"type": "integer", "minimum": i64::MIN, "maximum": i64::MAX});
        assert_eq!(bounded(&int64).unwrap(), json!({"type": "integer"}));
        let exact =
            json!({"minimum": -(1i64 << 53), "exclusiveMaximum": 1u64 << 53, "default": 1e300});
        assert_eq!(bounded(&exact).unwrap(), exact);
        for schema in [
            json!({"properties": {"id": {"minimum": (1u64 << 53) + 1}}}),
            json!({"anyOf": [{"type": "integer"}, {"maximum": -1e300}]}),
            json!({"const": (1u64 << 53) + 1}),
            json!({"enum": ["a", [1, {"b": 1e20}]]}),
            json!({"multipleOf": 1e17}),
        ] {
            let error = bounded(&schema).unwrap_err().to_string();
            assert!(error.contains("is beyond 2^53 = 9007199254740992"), "{error}");
        }
    }

    #[test]
    fn a_schema_of_too_many_levels_is_refused() {
        let nested = |levels| (0..levels).fold(json!({}), |schema, _| json!({"items": schema}));
        assert!(bounded(&nested(100)).is_ok());
        let error = bounded(&nested(101)).unwrap_err().to_string();
        assert!(error.contains("more than 100 levels"), "{error}");
    }
}
