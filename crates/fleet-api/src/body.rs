//! What clients of v1 send, read as the original reads it: keys in any case, unknown keys and
//! everything after the first JSON value ignored, faults named in Go's words.

use crate::go_json::{SyntaxError, Value, first_value};
use crate::v1::{MetadataOp, Unit, UnitOption};

/// Why a body cannot be read. It displays as Go's message.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BodyError {
    /// No JSON.
    #[error("{0}")]
    Syntax(String),
    /// JSON of another shape.
    #[error("json: cannot unmarshal {found} into Go {place} of type {wanted}")]
    Type {
        /// What stands there: `string`, `array`, …
        found: &'static str,
        /// `value`, or `struct field Unit.name`.
        place: String,
        /// Go's name of the type that should stand there.
        wanted: &'static str,
    },
}

/// The body of `PUT /units/{name}`. `null` is an empty unit.
pub fn unit(body: &[u8]) -> Result<Unit, BodyError> {
    let value = first(body)?;
    let mut unit = Unit::default();
    let mut fault = None;
    for (key, value) in fields(value, "schema.Unit", "value", &mut fault) {
        let text = match key.as_str() {
            "currentstate" => &mut unit.current_state,
            "desiredstate" => &mut unit.desired_state,
            "machineid" => &mut unit.machine_id,
            "name" => &mut unit.name,
            "options" => {
                unit.options = options(value, &mut fault);
                continue;
            }
            _ => continue,
        };
        let name = match key.as_str() {
            "currentstate" => "currentState",
            "desiredstate" => "desiredState",
            "machineid" => "machineID",
            _ => "name",
        };
        set(text, value, || format!("Unit.{name}"), &mut fault);
    }
    fault.map_or(Ok(unit), Err)
}

/// The body of `PATCH /machines`. `null` is an empty list. `value` may be an object, as the
/// original wants it, or a string, as JSON Patch means it.
pub fn metadata_ops(body: &[u8]) -> Result<Vec<MetadataOp>, BodyError> {
    let mut fault = None;
    let items = match first(body)? {
        Value::Null => Vec::new(),
        Value::Array(items) => items,
        other => {
            note(&mut fault, &other, "value", "[]api.machineMetadataOp");
            Vec::new()
        }
    };
    let ops = items
        .into_iter()
        .map(|item| metadata_op(item, &mut fault))
        .collect();
    fault.map_or(Ok(ops), Err)
}

fn metadata_op(item: Value, fault: &mut Option<BodyError>) -> MetadataOp {
    const VALUE: &str = r#"struct { Value string "json:\"value\"" }"#;
    let mut op = MetadataOp::default();
    for (key, value) in fields(item, "api.machineMetadataOp", "value", fault) {
        match key.as_str() {
            "op" => set(&mut op.op, value, || "machineMetadataOp.op".into(), fault),
            "path" => set(
                &mut op.path,
                value,
                || "machineMetadataOp.Path".into(),
                fault,
            ),
            "value" => match value {
                Value::String(text) => op.value = text,
                Value::Object(inner) => {
                    for (key, value) in inner {
                        if key.eq_ignore_ascii_case("value") {
                            set(&mut op.value, value, || ".Value.value".into(), fault);
                        }
                    }
                }
                other => note(fault, &other, "struct field machineMetadataOp.Value", VALUE),
            },
            _ => {}
        }
    }
    op
}

fn options(value: Value, fault: &mut Option<BodyError>) -> Vec<UnitOption> {
    const PLACE: &str = "struct field Unit.options";
    let items = match value {
        Value::Array(items) => items,
        other => {
            note(fault, &other, PLACE, "[]*schema.UnitOption");
            Vec::new()
        }
    };
    let mut options = Vec::with_capacity(items.len());
    for item in items {
        // The original crashes on a null option; it says nothing, so it is left out.
        if item == Value::Null {
            continue;
        }
        let mut option = UnitOption::default();
        for (key, value) in fields(item, "schema.UnitOption", PLACE, fault) {
            let text = match key.as_str() {
                "name" => &mut option.name,
                "section" => &mut option.section,
                "value" => &mut option.value,
                _ => continue,
            };
            set(text, value, || format!("UnitOption.options.{key}"), fault);
        }
        options.push(option);
    }
    options
}

fn first(body: &[u8]) -> Result<Value, BodyError> {
    first_value(body).map_err(|error: SyntaxError| BodyError::Syntax(error.to_string()))
}

/// The fields of an object, their keys in lower case.
fn fields(
    value: Value,
    wanted: &'static str,
    place: &str,
    fault: &mut Option<BodyError>,
) -> Vec<(String, Value)> {
    match value {
        Value::Object(fields) => fields
            .into_iter()
            .map(|(key, value)| (key.to_ascii_lowercase(), value))
            .collect(),
        other => {
            note(fault, &other, place, wanted);
            Vec::new()
        }
    }
}

fn set(text: &mut String, value: Value, field: impl Fn() -> String, fault: &mut Option<BodyError>) {
    match value {
        Value::String(value) => *text = value,
        other => note(
            fault,
            &other,
            &format!("struct field {}", field()),
            "string",
        ),
    }
}

/// The first fault counts; null fits everywhere.
fn note(fault: &mut Option<BodyError>, found: &Value, place: &str, wanted: &'static str) {
    if *found != Value::Null && fault.is_none() {
        *fault = Some(BodyError::Type {
            found: found.kind(),
            place: place.to_owned(),
            wanted,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_taken_in_any_case_and_unknown_ones_ignored() {
        let unit = unit(
            br#"{"NAME":"a.service","Desiredstate":"loaded","x":[1],"machineId":null,
                "options":[{"Section":"Unit","name":"A","VALUE":"b","z":1},null]} trailing"#,
        )
        .unwrap();
        assert_eq!(unit.name, "a.service");
        assert_eq!(unit.desired_state, "loaded");
        assert_eq!(
            unit.options,
            [UnitOption {
                name: "A".into(),
                section: "Unit".into(),
                value: "b".into(),
            }]
        );
    }

    #[test]
    fn units_of_another_shape_are_refused_in_gos_words() {
        for (body, message) in [
            ("", "EOF"),
            ("{", "unexpected EOF"),
            (
                "[]",
                "json: cannot unmarshal array into Go value of type schema.Unit",
            ),
            (
                "7",
                "json: cannot unmarshal number into Go value of type schema.Unit",
            ),
            (
                r#"{"name":1}"#,
                "json: cannot unmarshal number into Go struct field Unit.name of type string",
            ),
            (
                r#"{"options":{}}"#,
                "json: cannot unmarshal object into Go struct field Unit.options of type []*schema.UnitOption",
            ),
            (
                r#"{"options":["a"]}"#,
                "json: cannot unmarshal string into Go struct field Unit.options of type schema.UnitOption",
            ),
            (
                r#"{"options":[{"value":true}]}"#,
                "json: cannot unmarshal bool into Go struct field UnitOption.options.value of type string",
            ),
        ] {
            assert_eq!(unit(body.as_bytes()).unwrap_err().to_string(), message);
        }
        assert_eq!(unit(b"null"), Ok(Unit::default()));
    }

    #[test]
    fn metadata_ops_take_both_forms_of_a_value() {
        let op = |value: &str| MetadataOp {
            op: "add".into(),
            path: "/m/metadata/zone".into(),
            value: value.into(),
        };
        let body = br#"[{"op":"add","path":"/m/metadata/zone","value":{"value":"z1"}},
            {"OP":"add","Path":"/m/metadata/zone","value":"z2"},
            {"op":"add","path":"/m/metadata/zone","value":{}}]"#;
        assert_eq!(metadata_ops(body), Ok(vec![op("z1"), op("z2"), op("")]));
        assert_eq!(metadata_ops(b"null"), Ok(vec![]));
    }

    #[test]
    fn metadata_ops_of_another_shape_are_refused_in_gos_words() {
        for (body, message) in [
            (
                "garbage",
                "invalid character 'g' looking for beginning of value",
            ),
            ("", "EOF"),
            (
                "{}",
                "json: cannot unmarshal object into Go value of type []api.machineMetadataOp",
            ),
            (
                "[1]",
                "json: cannot unmarshal number into Go value of type api.machineMetadataOp",
            ),
            (
                r#"[{"value":1}]"#,
                "json: cannot unmarshal number into Go struct field machineMetadataOp.Value of type struct { Value string \"json:\\\"value\\\"\" }",
            ),
        ] {
            assert_eq!(
                metadata_ops(body.as_bytes()).unwrap_err().to_string(),
                message
            );
        }
    }
}
