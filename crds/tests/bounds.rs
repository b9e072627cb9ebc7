//! Every schema is bounded: the API server's budget for rules counts the largest object that a schema allows, and
//! nobody may store an object without end.

#![allow(clippy::unwrap_used, reason = "tests")]

use serde_json::Value;

fn check(path: &str, schema: &Value, problems: &mut Vec<String>) {
    let has = |key: &str| schema.get(key).is_some();
    match schema.get("type").and_then(Value::as_str) {
        Some("string") if !has("maxLength") && !has("enum") => problems.push(format!("{path}: maxLength")),
        Some("array") if !has("maxItems") => problems.push(format!("{path}: maxItems")),
        Some("integer") if !has("minimum") => problems.push(format!("{path}: minimum")),
        Some("integer") if !has("maximum") && !counts(path) => problems.push(format!("{path}: maximum")),
        Some("number") => problems.push(format!("{path}: no floats in an API")),
        Some("object")
            if (has("additionalProperties") || has("x-kubernetes-preserve-unknown-fields"))
                && !has("maxProperties") =>
        {
            problems.push(format!("{path}: maxProperties"));
        }
        None if has("x-kubernetes-int-or-string") && !has("maxLength") => {
            problems.push(format!("{path}: maxLength"));
        }
        _ => {}
    }
    if has("nullable") {
        problems.push(format!("{path}: nullable hides from has() that a field is absent"));
    }
    for (name, property) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
        check(&format!("{path}.{name}"), property, problems);
    }
    for key in ["items", "additionalProperties"] {
        if let Some(inner) = schema.get(key) {
            check(&format!("{path}.{key}"), inner, problems);
        }
    }
}

/// Numbers that only grow, and that no rule looks at.
fn counts(path: &str) -> bool {
    path.contains(".status.") && (path.ends_with("observedGeneration") || path.contains(".devices."))
}

#[test]
fn every_string_list_map_and_number_has_an_end() {
    let mut problems = Vec::new();
    for crd in tidegate_crds::schema::all() {
        let schema = crd.spec.versions[0].schema.as_ref().unwrap().open_api_v3_schema.as_ref().unwrap();
        let schema = serde_json::to_value(schema).unwrap();
        for part in ["spec", "status"] {
            check(&format!("{}.{part}", crd.spec.names.kind), &schema["properties"][part], &mut problems);
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn every_kind_has_status_short_name_category_and_a_ready_column() {
    for crd in tidegate_crds::schema::all() {
        let version = &crd.spec.versions[0];
        let subresources = version.subresources.as_ref().unwrap();
        assert!(subresources.status.is_some());
        let names = &crd.spec.names;
        assert_eq!(names.categories.as_deref(), Some(&["tidegate".to_owned()][..]));
        assert_eq!(names.short_names.as_ref().map(Vec::len), Some(1));
        let columns: Vec<_> =
            version.additional_printer_columns.iter().flatten().map(|c| c.name.as_str()).collect();
        for name in ["Ready", "Reason", "Age"] {
            assert!(columns.contains(&name), "{}: {columns:?}", names.kind);
        }
        let scale = subresources.scale.as_ref().map(|scale| scale.spec_replicas_path.as_str());
        assert_eq!(scale, (names.kind == "ProtocolGateway").then_some(".spec.replicas"));
    }
}
