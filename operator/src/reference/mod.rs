//! The reference page of every field, for the book: its prose is `page.md`, its tables come from the definitions. Pure.

use serde_json::{Map, Value};
use std::fmt::Write as _;

/// The prose, with `{{Kind}}` where a kind's tables belong.
const PAGE: &str = include_str!("page.md");

/// What this version stores, or has room for in the status, and does nothing about: kind, path.
const NOT_YET: [(&str, &str); 4] = [
    ("ProtocolGateway", "spec.bacnet"),
    ("ProtocolGateway", "spec.coap"),
    ("ProtocolGateway", "spec.modbus"),
    ("ProtocolGateway", "spec.sml"),
];

/// One field of a kind.
struct Field<'a> {
    /// From the object's root: `spec.kafka.managed`.
    path: String,
    schema: &'a Value,
    required: bool,
}

/// The whole page.
pub fn page(definitions: &[Value]) -> String {
    definitions.iter().fold(PAGE.to_owned(), |page, definition| {
        let kind = text(definition, "/spec/names/kind");
        page.replace(&format!("{{{{{kind}}}}}"), tables(kind, definition).trim_end())
    })
}

fn tables(kind: &str, definition: &Value) -> String {
    let root = definition.pointer("/spec/versions/0/schema/openAPIV3Schema").unwrap_or(&Value::Null);
    let mut fields = Vec::new();
    walk("", root, &mut fields);
    let mut page =
        "**`spec`**\n\n| field | type | default | meaning | bounds |\n|---|---|---|---|---|\n".to_owned();
    for field in &fields {
        if let Some(name) = field.path.strip_prefix("spec.") {
            let (type_, bounds) = (type_of(field), bounds(field));
            let (default, meaning) = (default_of(field), meaning(kind, field));
            let _ = writeln!(page, "| `{name}` | {type_} | {default} | {meaning} | {bounds} |");
        }
    }
    page.push_str("\n**`status`**\n\n| field | type | meaning |\n|---|---|---|\n");
    for field in &fields {
        match field.path.strip_prefix("status.") {
            Some("conditions") => {
                page.push_str("| `conditions` | list | See [conditions](conditions.md) |\n");
            }
            Some(name) if !name.starts_with("conditions[]") => {
                let _ = writeln!(page, "| `{name}` | {} | {} |", type_of(field), meaning(kind, field));
            }
            _ => {}
        }
    }
    page.push_str("\n**Rules** that the API server checks, in its words:\n\n");
    let whole = Field { path: "metadata.name".to_owned(), schema: root, required: true };
    for field in [&whole].into_iter().chain(&fields) {
        for (path, schema) in
            [(field.path.clone(), field.schema), (format!("{}[]", field.path), &field.schema["items"])]
        {
            for rule in schema["x-kubernetes-validations"].as_array().into_iter().flatten() {
                let _ = writeln!(page, "- `{path}`: {}", line(text(rule, "/message")));
            }
        }
    }
    page
}

/// All fields below `schema`, in the order of their names, each before its own fields.
fn walk<'a>(path: &str, schema: &'a Value, fields: &mut Vec<Field<'a>>) {
    let required: Vec<_> =
        schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    for (name, below) in properties(schema).into_iter().flatten() {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        if matches!(path.as_str(), "apiVersion" | "kind" | "metadata") {
            continue;
        }
        let field = Field { path: path.clone(), schema: below, required: required.contains(&name.as_str()) };
        let reference = is_reference(&field);
        fields.push(field);
        if reference {
            continue;
        }
        walk(&path, below, fields);
        if let Some(items) = below.get("items") {
            walk(&format!("{path}[]"), items, fields);
        }
    }
}

fn properties(schema: &Value) -> Option<&Map<String, Value>> {
    schema["properties"].as_object()
}

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// In one line, as a table wants it.
fn line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Whether it names another object and nothing else: its fields need no lines of their own.
fn is_reference(field: &Field<'_>) -> bool {
    field.path.ends_with("Ref")
}

fn type_of(field: &Field<'_>) -> String {
    let schema = field.schema;
    let pattern = text(schema, "/pattern");
    if schema["x-kubernetes-int-or-string"] == true {
        return "quantity".to_owned();
    }
    match text(schema, "/type") {
        // Only a duration's pattern has hours.
        "string" if pattern.contains("h)?(") => "duration".to_owned(),
        "array" => {
            let items = Field { path: String::new(), schema: &schema["items"], required: true };
            format!("list of {}", type_of(&items))
        }
        "object" if schema.get("additionalProperties").is_some() => "map".to_owned(),
        "object" if is_reference(field) => {
            let with_key = properties(schema).is_some_and(|all| all.contains_key("key"));
            if with_key { "object with `name` and `key`" } else { "object with `name`" }.to_owned()
        }
        "string" => "text".to_owned(),
        "integer" | "number" => "number".to_owned(),
        "boolean" => "true/false".to_owned(),
        _ => "object".to_owned(),
    }
}

fn default_of(field: &Field<'_>) -> String {
    match &field.schema["default"] {
        Value::String(text) if text.is_empty() => "`\"\"`".to_owned(),
        Value::String(text) => format!("`{text}`"),
        number @ (Value::Number(_) | Value::Bool(_)) => format!("`{}`", whole(number)),
        _ if field.required => "required".to_owned(),
        _ => String::new(),
    }
}

fn meaning(kind: &str, field: &Field<'_>) -> String {
    let not_yet = if NOT_YET.contains(&(kind, field.path.as_str())) { "**Not yet.** " } else { "" };
    format!("{not_yet}{}", line(text(field.schema, "/description")).replace('|', "\\|"))
}

fn bounds(field: &Field<'_>) -> String {
    let schema = field.schema;
    let between = |least: &str, most: &str, what: &str| match (&schema[least], &schema[most]) {
        (Value::Null, Value::Null) => String::new(),
        (Value::Null, most) => format!("at most {}{what}", whole(most)),
        (least, Value::Null) => format!("at least {}{what}", whole(least)),
        (least, most) => format!("{} to {}{what}", whole(least), whole(most)),
    };
    if let Some(all) = schema["enum"].as_array() {
        let all: Vec<_> = all.iter().filter_map(Value::as_str).map(|each| format!("`{each}`")).collect();
        return all.join(" \\| ");
    }
    match type_of(field).as_str() {
        "text" if !schema["maxLength"].is_null() => {
            format!("at most {} characters", whole(&schema["maxLength"]))
        }
        "number" => between("minimum", "maximum", ""),
        "map" => between("minProperties", "maxProperties", " entries"),
        list if list.starts_with("list") => between("minItems", "maxItems", " entries"),
        _ => String::new(),
    }
}

/// A value as people write it: bounds are floats in the API's types.
fn whole(value: &Value) -> String {
    match value.as_f64().filter(|float| value.is_f64() && float.fract() == 0.0) {
        Some(float) => format!("{float:.0}"),
        None => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn definitions() -> Vec<Value> {
        tidegate_crds::schema::all().iter().map(|crd| serde_json::to_value(crd).unwrap()).collect()
    }

    #[test]
    fn every_kind_has_its_tables() {
        let page = page(&definitions());
        assert!(!page.contains("{{"), "a kind's place is not filled");
        assert_eq!(page.matches("**`spec`**").count(), definitions().len());
        for line in [
            "| `kafka.managed.brokers` | number | `3` | The number of brokers; the first three also vote. It never shrinks. | 3 to 99 |",
            "| `platformRef` | object with `name` | required | The platform. |  |",
            "| `expose.type` | text | `LoadBalancer` | The kind of Service. | `LoadBalancer` \\| `NodePort` \\| `ClusterIP` |",
        ] {
            assert!(page.contains(line), "{line}");
        }
    }

    #[test]
    fn what_is_marked_as_not_there_yet_exists() {
        for (kind, path) in NOT_YET {
            let definitions = definitions();
            let of_kind = definitions.iter().find(|one| text(one, "/spec/names/kind") == kind).unwrap();
            let root = of_kind.pointer("/spec/versions/0/schema/openAPIV3Schema").unwrap();
            let mut fields = Vec::new();
            walk("", root, &mut fields);
            assert!(fields.iter().any(|field| field.path == path), "{kind} has no {path}");
        }
    }
}
