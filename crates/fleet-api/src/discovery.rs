//! The discovery document of v1: a constant that describes v1 in the style of Google's APIs.

/// Pretty-printed with two blanks, as the original prints it.
pub const DOCUMENT: &str = include_str!("discovery.json");

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    #[test]
    fn it_is_pretty_printed_json_of_all_methods() {
        let document: Value = serde_json::from_str(DOCUMENT).unwrap();
        let pretty = serde_json::to_string_pretty(&document).unwrap();
        assert_eq!(DOCUMENT, format!("{pretty}\n"));
        let mut methods = Vec::new();
        for (resource, description) in document["resources"].as_object().unwrap() {
            for (method, description) in description["methods"].as_object().unwrap() {
                methods.push(format!(
                    "{resource}.{method} {} {} {}",
                    description["id"].as_str().unwrap(),
                    description["httpMethod"].as_str().unwrap(),
                    description["path"].as_str().unwrap()
                ));
            }
        }
        assert_eq!(
            methods,
            [
                "Machines.List fleet.Machine.List GET machines",
                "UnitState.Get fleet.UnitState.Get GET state/{unitName}",
                "UnitState.List fleet.UnitState.List GET state",
                "Units.Delete fleet.Unit.Delete DELETE units/{unitName}",
                "Units.Get fleet.Unit.Get GET units/{unitName}",
                "Units.List fleet.Unit.List GET units",
                "Units.Set fleet.Unit.Set PUT units/{unitName}",
            ]
        );
    }

    /// Every field of the schemas is one of our types' and the other way round.
    #[test]
    fn its_schemas_are_our_types() {
        let document: Value = serde_json::from_str(DOCUMENT).unwrap();
        let text = |text: &str| Value::String(text.into());
        let full = |schema: &str| {
            let properties = document["schemas"][schema]["properties"]
                .as_object()
                .unwrap();
            let mut value = serde_json::Map::new();
            for (name, description) in properties {
                let sample = match description["type"].as_str() {
                    Some("string") => text("x"),
                    Some("array") => serde_json::json!([{}]),
                    _ => serde_json::json!({"k": "v"}),
                };
                value.insert(name.clone(), sample);
            }
            Value::Object(value)
        };
        fn check<T: serde::de::DeserializeOwned + serde::Serialize>(sample: Value) {
            let read: T = serde_json::from_value(sample.clone()).unwrap();
            assert_eq!(serde_json::to_value(&read).unwrap(), sample);
        }
        check::<crate::v1::Machine>(full("Machine"));
        check::<crate::v1::MachinePage>(full("MachinePage"));
        check::<crate::v1::UnitOption>(full("UnitOption"));
        check::<crate::v1::Unit>(full("Unit"));
        check::<crate::v1::UnitPage>(full("UnitPage"));
        check::<crate::v1::UnitState>(full("UnitState"));
        check::<crate::v1::UnitStatePage>(full("UnitStatePage"));
    }
}
