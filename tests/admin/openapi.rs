//! What an agent at work answers is what its OpenAPI document says.

use std::sync::Arc;
use std::time::Instant;

use ioasd::actors::operation::Operation;
use ioasd_client::calls::{AccessKind, PinIntent};
use serde_json::Value;

use crate::fixture::{Agent, attach, map, memory, range};

/// What is wrong with `value`, which should be as `schema` says; a line each.
fn offences(document: &Value, schema: &Value, value: &Value, at: &str) -> Vec<String> {
    if let Some(name) = schema["$ref"].as_str() {
        let target = document.pointer(name.trim_start_matches('#')).unwrap();
        return offences(document, target, value, at);
    }
    if let Some(choices) = schema["oneOf"].as_array() {
        let fits = choices.iter().any(|choice| offences(document, choice, value, at).is_empty());
        return if fits { Vec::new() } else { vec![format!("{at}: {value} is none of the choices")] };
    }
    if let Some(parts) = schema["allOf"].as_array() {
        return parts.iter().flat_map(|part| offences(document, part, value, at)).collect();
    }
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let allowed = &schema["type"];
    if allowed != kind && !allowed.as_array().is_some_and(|kinds| kinds.iter().any(|allowed| allowed == kind))
    {
        return vec![format!("{at}: {value} is not {allowed}")];
    }
    let mut found = Vec::new();
    for item in value.as_array().into_iter().flatten() {
        found.extend(offences(document, &schema["items"], item, at));
    }
    for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        found.extend(value.get(name).is_none().then(|| format!("{at}: {name} is missing")));
    }
    for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
        let inside = value.get(name).map(|value| offences(document, inner, value, &format!("{at}.{name}")));
        found.extend(inside.unwrap_or_default());
    }
    found
}

/// The names that `schema` knows, through references and parts.
fn names(document: &Value, schema: &Value) -> Vec<String> {
    if let Some(name) = schema["$ref"].as_str() {
        return names(document, document.pointer(name.trim_start_matches('#')).unwrap());
    }
    let parts = schema["allOf"].as_array().into_iter().flatten();
    let inherited = parts.flat_map(|part| names(document, part));
    inherited
        .chain(schema["properties"].as_object().into_iter().flatten().map(|(name, _)| name.clone()))
        .collect()
}

#[test]
fn every_answer_is_as_the_document_says() {
    let agent = Agent::start();
    let (mut client, file) = (agent.connect(), memory(4));
    let ioas = client.ioas_alloc().unwrap();
    map(&mut client, ioas, &file, (0, 0x4000), 0x10_0000);
    attach(&mut client, ioas);
    let access = client.access_create(ioas, AccessKind::Pinning).unwrap();
    client.access_pin(access, range(0x10_0000, 0x1000), PinIntent::Read).unwrap();
    let context = agent.shared.registry.contexts()[0].number;
    let waits = agent.shared.registry.register_operation(Arc::new(Operation::new(context, Instant::now())));
    let door = agent.socket();
    let document = door.json("/openapi.json");
    assert_eq!(document["openapi"], "3.1.0");
    let mut looked_at = 0;
    for (path, item) in document["paths"].as_object().unwrap() {
        if item["get"].is_null() {
            continue;
        }
        if path == "/v1/log" {
            // The log of these tests is not the agent's.
            door.get(path).assert_problem(404, "not-offered", rustix::io::Errno::OPNOTSUPP);
            continue;
        }
        let query = match path.rsplit('/').next() {
            Some("walk") => "?iova=0x100000",
            Some("explain") => "?length=0x1000",
            _ => "",
        };
        let id = if path.starts_with("/v1/operations") { waits.number().get() } else { 1 };
        let answer = door.get(&format!("{}{query}", path.replace("{id}", &id.to_string())));
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        let content = item["get"]["responses"]["200"]["content"].as_object().unwrap();
        let (kind, content) = content.iter().next().unwrap();
        assert!(answer.head.contains(&format!("content-type: {kind}")), "{path}: {}", answer.head);
        if kind == "application/json" {
            let (schema, value) = (&content["schema"], answer.json());
            assert_eq!(offences(&document, schema, &value, path), Vec::<String>::new());
            let known = names(&document, schema);
            let unknown: Vec<_> =
                value.as_object().unwrap().keys().filter(|key| !known.contains(key)).collect();
            assert!(unknown.is_empty(), "{path}: {unknown:?} are not described");
            looked_at += 1;
        }
    }
    assert!(looked_at >= 15, "only {looked_at} answers were JSON");
    let problem = door.get("/v1/ioas?limit=0").json();
    let schema =
        &document["paths"]["/v1/ioas"]["get"]["responses"]["4XX"]["content"]["application/problem+json"];
    assert_eq!(offences(&document, &schema["schema"], &problem, "problem"), Vec::<String>::new());
}
