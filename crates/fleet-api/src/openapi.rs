//! The OpenAPI document of v2, held against the types by its tests. fleetd serves it.

/// OpenAPI 3.1, JSON.
pub const DOCUMENT: &str = include_str!("../openapi-v2.json");

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde::Serialize;
    use serde::de::DeserializeOwned;
    use serde_json::{Map, Value, json};

    use super::*;
    use crate::v2;

    fn document() -> Value {
        serde_json::from_str(DOCUMENT).unwrap()
    }

    /// A value that has all properties of a schema, none of them empty.
    fn full(document: &Value, schema: &Value) -> Value {
        let inner = schema.get("allOf").map_or(schema, |all| &all[0]);
        if let Some(reference) = inner.get("$ref").and_then(Value::as_str) {
            let name = reference.rsplit('/').next().unwrap();
            return full(document, &document["components"]["schemas"][name]);
        }
        match inner["type"].as_str() {
            Some("string") => json!("x"),
            Some("boolean") => json!(true),
            Some("integer") => json!(7),
            Some("array") => json!([full(document, &inner["items"])]),
            Some("object") => match inner.get("properties") {
                Some(properties) => Value::Object(
                    properties
                        .as_object()
                        .unwrap()
                        .iter()
                        .map(|(name, schema)| (name.clone(), full(document, schema)))
                        .collect(),
                ),
                None => json!({"k": "v"}),
            },
            other => panic!("a schema of type {other:?}: {inner}"),
        }
    }

    fn keys(object: &Map<String, Value>) -> BTreeSet<&str> {
        object.keys().map(String::as_str).collect()
    }

    /// The schema has exactly the type's fields; in answers, `required` are those that are
    /// there even in an empty value.
    fn check<T: Serialize + DeserializeOwned + Default>(name: &str, is_answer: bool) {
        check_read::<T>(name, is_answer, |text| serde_json::from_str(&text).unwrap());
    }

    /// As `check`, for an answer that borrows from its text.
    fn check_row<T: Serialize + serde::Deserialize<'static> + Default>(name: &str) {
        check_read::<T>(name, true, |text| {
            serde_json::from_str(text.leak()).unwrap()
        });
    }

    fn check_read<T: Serialize + Default>(name: &str, is_answer: bool, read: impl Fn(String) -> T) {
        let document = document();
        let schema = &document["components"]["schemas"][name];
        let sample = full(&document, schema);
        let read = read(sample.to_string());
        assert_eq!(serde_json::to_value(&read).unwrap(), sample, "{name}");
        if is_answer {
            let empty = serde_json::to_value(T::default()).unwrap();
            let required: BTreeSet<&str> = schema["required"]
                .as_array()
                .unwrap()
                .iter()
                .map(|name| name.as_str().unwrap())
                .collect();
            assert_eq!(keys(empty.as_object().unwrap()), required, "{name}");
        }
    }

    #[test]
    fn its_schemas_are_our_types() {
        check::<v2::BatchRequest>("BatchRequest", false);
        check::<v2::UnitWish>("UnitWish", false);
        check::<v2::Whoami>("Whoami", true);
        check::<v2::BatchAnswer>("BatchAnswer", true);
        check::<v2::WishAnswer>("WishAnswer", true);
        check::<v2::WaitRequest>("WaitRequest", false);
        check::<v2::WaitFor>("WaitFor", false);
        check::<v2::Progress>("Progress", true);
        check::<v2::MachineRef>("MachineRef", true);
        check::<v2::RefusalView>("RefusalView", true);
        check::<v2::StateView>("StateView", true);
        check::<v2::UnitView>("UnitView", true);
        check::<v2::UnitListing>("UnitListing", true);
        check_row::<v2::RowPage<'static>>("RowPage");
        check_row::<v2::UnitRow<'static>>("UnitRow");
        check_row::<v2::StateRow<'static>>("StateRow");
        check_row::<v2::UnitChanges<'static>>("UnitChanges");
        check::<v2::MachineListing>("MachineListing", true);
        check::<v2::MachineView>("MachineView", true);
        check::<v2::MachineChange>("MachineChange", false);
        check::<v2::MachineUnitListing>("MachineUnitListing", true);
        check::<v2::MachineUnit>("MachineUnit", true);
        check::<v2::ClusterView>("ClusterView", true);
        check::<v2::EventListing>("EventListing", true);
        check::<v2::EventView>("EventView", true);
        check::<v2::EventLine>("EventLine", true);
        check::<v2::UnitStatus>("UnitStatus", true);
        check::<v2::UnitOnMachine>("UnitOnMachine", true);
        check::<v2::SystemdView>("SystemdView", true);
        check::<v2::JournalEntry>("JournalEntry", true);
        check::<v2::JournalLine>("JournalLine", true);
        check::<v2::LeaderView>("LeaderView", true);
        check::<v2::DamageView>("DamageView", true);
        check::<v2::JoinTokenRequest>("JoinTokenRequest", false);
        check::<v2::JoinToken>("JoinToken", true);
        check::<v2::CertificateRequest>("CertificateRequest", false);
        check::<v2::CertificateAnswer>("CertificateAnswer", true);
        check::<v2::RevokeRequest>("RevokeRequest", false);
        check::<v2::RevocationListing>("RevocationListing", true);
        check::<v2::RevocationView>("RevocationView", true);
        let n_schemas = document()["components"]["schemas"]
            .as_object()
            .unwrap()
            .len();
        assert_eq!(n_schemas, 40 + 1, "all of them, and the error");
    }

    #[test]
    fn every_reference_leads_somewhere() {
        let document = document();
        let names = keys(document["components"]["schemas"].as_object().unwrap());
        let mut n_references = 0;
        for part in DOCUMENT.split("\"#/components/schemas/").skip(1) {
            let name = part.split('"').next().unwrap();
            assert!(names.contains(name), "{name}");
            n_references += 1;
        }
        assert!(n_references > names.len());
    }
}
