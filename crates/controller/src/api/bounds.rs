//! Whether a specification keeps the bounds of its schema.
//!
//! The API server checks them, too, but not those of objects that are older than a bound, and not where the definition that is installed
//! is older. So each bound is declared once, in the schema, and checked here before the first call that a specification leads to.

use std::sync::LazyLock;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use serde_json::Value;

use super::{DirectVolumeMigrationSpec, schema::schema_of_spec};

/// Names of namespaces: RFC 1123 labels.
pub(super) const LABEL: &str = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$";
/// Names of other objects: RFC 1123 subdomains.
pub(super) const SUBDOMAIN: &str =
    r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";
/// The same, or nothing.
pub(super) const SUBDOMAIN_OR_EMPTY: &str =
    r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*)?$";
/// Keys of Secrets.
pub(super) const KEY: &str = "^[-._a-zA-Z0-9]+$";
/// Rates that pvferry takes: up to 999.999G.
pub(super) const RATE: &str =
    r"^([0-9]{1,9}(\.[0-9]{1,3})?K?|[0-9]{1,6}(\.[0-9]{1,3})?M|[0-9]{1,3}(\.[0-9]{1,3})?G)$";
/// Quantities of storage, in the forms that people write.
pub(super) const SIZE: &str = r"^[0-9]{1,15}(\.[0-9]{1,6})?([kMGTP]|[KMGTP]i)?$";
/// Filter patterns: one line.
pub(super) const LINE: &str = r"^[^\x00-\x1f\x7f]*$";

/// Bytes of a specification. Its status repeats the options of the run, and an API server writes about 1 MiB.
const SPEC: usize = 256 << 10;

/// Whether a text is an RFC 1123 label, but for its length.
fn is_label(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    text.bytes().all(inner) && !text.is_empty() && !text.starts_with('-') && !text.ends_with('-')
}

/// Whether a text is an RFC 1123 subdomain, but for its length.
fn is_subdomain(text: &str) -> bool {
    text.split('.').all(is_label)
}

/// Whether a text is a decimal number with at most so many digits before and behind its point.
fn is_number(text: &str, before: usize, behind: usize) -> bool {
    let digits = |text: &str, most: usize| {
        (1..=most).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit())
    };
    let (whole, part) = text.split_once('.').map_or((text, None), |(a, b)| (a, Some(b)));
    digits(whole, before) && part.is_none_or(|part| digits(part, behind))
}

/// A pattern of the schema, as code: without an engine for patterns, and of the same meaning.
fn matches(pattern: &str, text: &str) -> Option<bool> {
    let is = match pattern {
        LABEL => is_label(text),
        SUBDOMAIN => is_subdomain(text),
        SUBDOMAIN_OR_EMPTY => text.is_empty() || is_subdomain(text),
        KEY => {
            let inner = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
            !text.is_empty() && text.bytes().all(inner)
        }
        RATE => {
            let (number, digits) = match text.strip_suffix(['K', 'M', 'G']) {
                Some(number) if text.ends_with('M') => (number, 6),
                Some(number) if text.ends_with('G') => (number, 3),
                Some(number) => (number, 9),
                None => (text, 9),
            };
            is_number(number, digits, 3)
        }
        SIZE => {
            let units = ["Ki", "Mi", "Gi", "Ti", "Pi", "k", "M", "G", "T", "P"];
            let number = units.iter().find_map(|unit| text.strip_suffix(unit)).unwrap_or(text);
            is_number(number, 15, 6)
        }
        LINE => !text.chars().any(|c| c.is_ascii_control()),
        _ => return None,
    };
    Some(is)
}

/// Why a specification does not keep the bounds of its schema: its first field that does not.
#[must_use]
pub fn violation(spec: &DirectVolumeMigrationSpec) -> Option<String> {
    static SCHEMA: LazyLock<Option<JSONSchemaProps>> = LazyLock::new(schema_of_spec);
    let value = serde_json::to_value(spec).ok()?;
    if let Err(why) = check(SCHEMA.as_ref()?, &value, "spec") {
        return Some(why);
    }
    // Keys of maps have no bounds in a schema.
    let bytes = value.to_string().len();
    (bytes > SPEC).then(|| format!("spec has {bytes} bytes: maximum {SPEC}"))
}

fn check(schema: &JSONSchemaProps, value: &Value, path: &str) -> Result<(), String> {
    match value {
        Value::String(text) => check_text(schema, text, path),
        Value::Number(number) => {
            let number = number.as_f64().unwrap_or(f64::NAN);
            if schema.minimum.is_some_and(|least| number < least) {
                return Err(format!("{path} is too small"));
            }
            if schema.maximum.is_some_and(|most| number > most) {
                return Err(format!("{path} is too large"));
            }
            Ok(())
        }
        Value::Array(items) => {
            check_count(items.len(), schema.min_items, schema.max_items, path)?;
            let Some(JSONSchemaPropsOrArray::Schema(of)) = &schema.items else { return Ok(()) };
            let mut all = items.iter().enumerate();
            all.try_for_each(|(at, item)| check(of, item, &format!("{path}[{at}]")))
        }
        Value::Object(fields) => {
            check_count(fields.len(), schema.min_properties, schema.max_properties, path)?;
            for (name, value) in fields {
                let known = schema.properties.as_ref().and_then(|all| all.get(name));
                let field = match &schema.additional_properties {
                    Some(JSONSchemaPropsOrBool::Schema(any)) => known.or(Some(&**any)),
                    _ => known,
                };
                if let Some(field) = field {
                    check(field, value, &format!("{path}.{name}"))?;
                }
            }
            Ok(())
        }
        Value::Null | Value::Bool(_) => Ok(()),
    }
}

fn check_text(schema: &JSONSchemaProps, text: &str, path: &str) -> Result<(), String> {
    let length = text.chars().count();
    check_count(length, schema.min_length, schema.max_length, path)?;
    match schema.pattern.as_deref().and_then(|pattern| matches(pattern, text)) {
        Some(false) => {
            let start: String = text.chars().take(80).collect();
            Err(format!("{path}: {start:?} is not valid"))
        }
        _ => Ok(()),
    }
}

fn check_count(
    count: usize,
    least: Option<i64>,
    most: Option<i64>,
    path: &str,
) -> Result<(), String> {
    let count = i64::try_from(count).unwrap_or(i64::MAX);
    match (least, most) {
        (Some(least), _) if count < least => Err(format!("{path} is too short: minimum {least}")),
        (_, Some(most)) if count > most => Err(format!("{path} is too long: maximum {most}")),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patterns(schema: &JSONSchemaProps, found: &mut Vec<String>) {
        found.extend(schema.pattern.clone());
        schema.properties.iter().flat_map(|all| all.values()).for_each(|of| patterns(of, found));
        if let Some(JSONSchemaPropsOrArray::Schema(of)) = &schema.items {
            patterns(of, found);
        }
        if let Some(JSONSchemaPropsOrBool::Schema(of)) = &schema.additional_properties {
            patterns(of, found);
        }
    }

    /// The texts, lists and maps without a bound, as paths.
    fn unbounded(schema: &JSONSchemaProps, path: &str, found: &mut Vec<String>) {
        let is_bounded = match schema.type_.as_deref() {
            Some("string") => schema.enum_.is_some() || schema.max_length.is_some(),
            Some("array") => schema.max_items.is_some(),
            Some("object") if schema.additional_properties.is_some() => {
                schema.max_properties.is_some()
            }
            _ => true,
        };
        if !is_bounded {
            found.push(path.to_owned());
        }
        for (name, of) in schema.properties.iter().flatten() {
            unbounded(of, &format!("{path}.{name}"), found);
        }
        if let Some(JSONSchemaPropsOrArray::Schema(of)) = &schema.items {
            unbounded(of, &format!("{path}[]"), found);
        }
        if let Some(JSONSchemaPropsOrBool::Schema(of)) = &schema.additional_properties {
            unbounded(of, &format!("{path}{{}}"), found);
        }
    }

    #[test]
    fn every_text_list_and_map_has_a_bound() {
        let mut found = Vec::new();
        unbounded(&schema_of_spec().unwrap(), "spec", &mut found);
        assert!(found.is_empty(), "{found:?}");
    }

    #[test]
    fn every_pattern_of_the_schema_is_checked() {
        let mut found = Vec::new();
        patterns(&schema_of_spec().unwrap(), &mut found);
        assert!(found.len() > 8, "{found:?}");
        for pattern in found {
            assert!(matches(&pattern, "a").is_some(), "{pattern}");
        }
    }

    #[test]
    fn patterns_mean_what_they_say() {
        for (pattern, good, bad) in [
            (LABEL, &["a", "a-b", "0"][..], &["", "a.b", "A", "-a", "a-", "a/b"][..]),
            (SUBDOMAIN, &["a", "a.b", "a-b.c"], &["", ".", "a..b", "a.", "a?b"]),
            (SUBDOMAIN_OR_EMPTY, &["", "a.b"], &["a/b"]),
            (KEY, &["kubeconfig", "a.b_C-d"], &["", "a b", "a/b"]),
            (
                RATE,
                &["0", "1", "20M", "1.5G", "999999999K", "999999.999M", "999.999G"],
                &["", "M", "1.", ".5", "1MM", "-1", "1 M", "1000G", "9999999999", "1.0001", "1e3"],
            ),
            (
                SIZE,
                &["1", "10Gi", "1.5Ti", "500M", "1000k"],
                &["", "Gi", "1e99", "-1Gi", "1 Gi", "10gb", "1Ei", "1.", "1000000000000000Gi"],
            ),
            (LINE, &["*.log", "", "a b", "ü"], &["a\nb", "\r", "\0", "\t"]),
        ] {
            assert!(good.iter().all(|text| matches(pattern, text) == Some(true)), "{pattern}");
            assert!(bad.iter().all(|text| matches(pattern, text) == Some(false)), "{pattern}");
        }
    }
}
