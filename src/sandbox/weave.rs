//! The endpoints of the trace server that `weave.init` and a traced op need, under `/traces`.

use hyper::{Method, StatusCode};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::reply::{self, Reply};
use super::server::State;

pub(super) fn route(state: &State, method: &Method, path: &str, body: &[u8]) -> Reply {
    let segments: Vec<_> = path.trim_matches('/').split('/').collect();
    // The project is part of the newer paths; the statistics name the endpoint without it.
    let endpoint = match segments.as_slice() {
        ["v2", _, _, rest @ ..] => format!("v2/{}", rest.join("/")),
        all => all.join("/"),
    };
    state.stats().weave.requests.add(&endpoint);
    let request = || serde_json::from_slice::<Value>(body).unwrap_or_default();
    match (method, endpoint.as_str()) {
        (&Method::GET, "server_info") => reply::ok(&json!({
            "min_required_weave_python_version": "0.0.1",
            "trace_server_version": "1.0.0",
        })),
        (&Method::POST, "obj/create" | "file/create") => reply::ok(&json!({ "digest": digest(body) })),
        (&Method::POST, "table/create") => {
            let rows = request()["table"]["rows"].as_array().map_or(0, Vec::len);
            let rows: Vec<_> = (0..rows).map(|row| digest(row.to_string().as_bytes())).collect();
            reply::ok(&json!({ "digest": digest(body), "row_digests": rows }))
        }
        (&Method::POST, "call/upsert_batch") => {
            let request = request();
            let calls: Vec<_> = request["batch"].as_array().into_iter().flatten().collect();
            for call in &calls {
                started(state, &call["req"]["start"]);
                ended(state, &call["req"]["end"]);
            }
            reply::ok(&json!({ "res": calls.iter().map(|_| json!({})).collect::<Vec<_>>() }))
        }
        (&Method::POST, "call/start" | "v2/call/start") => {
            let request = request();
            let start = &request["start"];
            started(state, start);
            reply::ok(&json!({ "id": start["id"], "trace_id": start["trace_id"] }))
        }
        (&Method::POST, "call/end" | "v2/call/end") => {
            ended(state, &request()["end"]);
            reply::ok(&json!({}))
        }
        (&Method::POST, "v2/calls/complete") => {
            for call in request()["batch"].as_array().into_iter().flatten() {
                started(state, call);
                ended(state, call);
            }
            reply::ok(&json!({}))
        }
        _ => reply::json(StatusCode::NOT_FOUND, &json!({ "detail": "Not Found" })),
    }
}

/// Counts a call that has started; `null` is not a call.
fn started(state: &State, call: &Value) {
    if call.is_object() {
        let mut stats = state.stats();
        stats.weave.calls_started += 1;
        stats.weave.ops.add(call["op_name"].as_str().unwrap_or_default());
    }
}

fn ended(state: &State, call: &Value) {
    if call.is_object() {
        state.stats().weave.calls_ended += 1;
    }
}

fn digest(bytes: &[u8]) -> String {
    format!("{:x}", Sha256::digest(bytes))
}
