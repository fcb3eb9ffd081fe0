//! The W&B half after the exchange: GraphQL, `file_stream` and uploads, the minimum that a real run needs.

use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::{Request, StatusCode};
use serde_json::{Value, json};

use super::reply::{self, Reply};
use super::server::State;
use super::{artifacts, files, sweeps};

/// `POST /graphql`. Operations are told apart by name: the clients we test never reuse one for another query.
pub(super) fn graphql(state: &State, body: &[u8]) -> Reply {
    let Ok(request) = serde_json::from_slice::<Value>(body) else {
        return reply::text(StatusCode::BAD_REQUEST, "the request is not JSON");
    };
    let operation = operation(&request);
    state.stats().graphql.add(operation);
    let variables = &request["variables"];
    let text = |name: &str, default: &str| match variables[name].as_str() {
        Some(text) if !text.is_empty() => text.to_owned(),
        _ => default.to_owned(),
    };
    let data = match operation {
        "UpsertBucket" => {
            let run = text("name", "run");
            json!({ "upsertBucket": {
                "inserted": true,
                "bucket": {
                    "id": run,
                    "name": run,
                    "displayName": text("displayName", &run),
                    "historyLineCount": 0,
                    "config": "{}",
                    "project": {
                        "name": text("project", "uncategorized"),
                        "entity": { "name": text("entity", ENTITY) },
                    },
                },
            } })
        }
        // Without a name: the SDK's look at a key that it is given (0.22.3, `_verify_login`).
        "" if request["query"].as_str().is_some_and(|query| query.contains("viewer")) => {
            json!({ "viewer": viewer(state) })
        }
        "Viewer" | "GetViewer" | "DefaultEntity" | "GetDefaultEntity" => json!({ "viewer": viewer(state) }),
        "CreateRunFiles" => {
            let project = text("project", "uncategorized");
            let files: Vec<_> =
                uploads(state, variables, &text("entity", ENTITY), &project, &text("run", "run"))
                    .map(|(name, url)| json!({ "name": name, "uploadUrl": url }))
                    .collect();
            json!({ "createRunFiles": {
                "runID": text("run", "run"),
                "uploadHeaders": [],
                "files": files,
            } })
        }
        // SDKs before 0.17 (`internal_api.py`).
        "RunUploadUrls" => {
            let project = text("name", "uncategorized");
            let edges: Vec<_> =
                uploads(state, variables, &text("entity", ENTITY), &project, &text("run", "run"))
                    .map(|(name, url)| json!({ "node": { "name": name, "url": url, "updatedAt": null } }))
                    .collect();
            json!({ "model": { "bucket": {
                "id": text("run", "run"),
                "files": { "uploadHeaders": [], "edges": edges },
            } } })
        }
        // What fields a server has: the fewest.
        "ProbeServerCapabilities" => {
            let fields = json!({ "fields": [{ "name": "viewer" }] });
            json!({ "QueryType": fields, "MutationType": fields, "ServerInfoType": { "fields": [] } })
        }
        "ProbeServerSettings" => json!({ "ServerSettingsType": { "fields": [] } }),
        // 0.19.11 (`server_provides_internal_id_for_run`).
        "ProbeRunInput" | "ProbeProjectInput" => {
            json!({ "RunType": { "fields": [] }, "ProjectType": { "fields": [] } })
        }
        "ProbeServerUseArtifactInput" => {
            json!({ "UseArtifactInputInfoType": { "name": "UseArtifactInput", "inputFields": [] } })
        }
        "Run" | "RunFiles" => {
            let (entity, project, run) =
                (text("entity", ENTITY), text("project", "uncategorized"), text("name", "run"));
            let files = state.files().listed(&state.url, &format!("{entity}/{project}/{run}"), variables);
            json!({ "project": { "internalId": "1", "run": {
                "id": run, "internalId": "1", "name": run, "displayName": run, "state": "finished",
                "config": "{}", "rawconfig": "{}", "summaryMetrics": "{}", "systemMetrics": "{}",
                "historyLineCount": 0, "historyKeys": {}, "tags": [], "readOnly": false, "sweepName": null,
                "createdAt": "2026-01-01T00:00:00", "heartbeatAt": "2026-01-01T00:00:00",
                "user": { "name": "dev", "username": "dev" },
                "fileCount": files["edges"].as_array().map_or(0, Vec::len),
                "files": files,
            } } })
        }
        "RunResumeStatus" => {
            let (entity, project, run) =
                (text("entity", ENTITY), text("project", "uncategorized"), text("name", "run"));
            json!({ "model": { "id": project, "name": project, "entity": { "id": entity, "name": entity },
                "bucket": resumed(state, &format!("{entity}/{project}/{run}"), &run) } })
        }
        "RunStoppedStatus" => json!({ "project": { "run": { "stopped": false } } }),
        "OrganizationCoreWeaveOrganizationID" => json!({ "entity": { "organization": null } }),
        "ServerFeaturesQuery" => json!({ "serverInfo": { "features": [] } }),
        "UpsertModel" => json!({ "upsertModel": { "model": {
            "name": text("name", "uncategorized"),
            "description": null,
        } } }),
        "Project" => json!({ "project": { "name": text("name", "uncategorized") } }),
        _ if let Some(data) = artifacts::graphql(state, operation, variables) => data,
        _ if let Some(data) = sweeps::graphql(state, operation, variables) => data,
        _ => {
            state.stats().graphql_unknown.add(operation);
            let message = format!("the sandbox does not know the operation {operation:?}");
            return reply::ok(&json!({ "data": null, "errors": [{ "message": message }] }));
        }
    };
    reply::ok(&json!({ "data": data }))
}

/// The files that a client is about to upload, each with its URL.
fn uploads<'a>(
    state: &State,
    variables: &'a Value,
    entity: &str,
    project: &str,
    run: &str,
) -> impl Iterator<Item = (&'a str, String)> {
    let base = format!("{}/storage/{}/{entity}/{project}/{run}", state.url, state.upload_key);
    let names = variables["files"].as_array().into_iter().flatten().filter_map(Value::as_str);
    names.map(move |name| (name, format!("{base}/{name}")))
}

/// What a client needs to go on with a run; `null` if there is none.
fn resumed(state: &State, path: &str, name: &str) -> Value {
    let stats = state.stats();
    let Some(run) = stats.runs.get(path) else { return Value::Null };
    let last: Vec<_> = run.rows.last().into_iter().flatten().collect();
    json!({
        "id": name, "name": name, "displayName": name, "summaryMetrics": "{}", "config": "{}", "tags": [],
        "notes": null, "wandbConfig": "{}", "logLineCount": 0, "eventsLineCount": 0, "eventsTail": "[]",
        "historyLineCount": run.rows.len(), "historyTail": json!(last).to_string(),
    })
}

fn viewer(state: &State) -> Value {
    let subject = &state.subjects[0];
    json!({
        "id": "VXNlcjox",
        "name": subject,
        "username": subject.split('@').next(),
        "email": subject,
        "admin": false,
        "deletedAt": null,
        "flags": "{}",
        "entity": ENTITY,
        "defaultEntity": { "id": "RW50aXR5OjE=", "name": ENTITY },
        "apiKeys": { "edges": [] },
        "teams": { "edges": [{ "node": { "name": ENTITY } }] },
    })
}

/// `operationName`, or else the name after the first `query` or `mutation`.
fn operation(request: &Value) -> &str {
    if let Some(name) = request["operationName"].as_str().filter(|name| !name.is_empty()) {
        return name;
    }
    let query = request["query"].as_str().unwrap_or_default();
    // Some begin with a comment.
    let query = query.trim_start();
    let query =
        if query.starts_with('#') { query.split_once('\n').map_or("", |(_, rest)| rest) } else { query };
    let mut words = query.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty());
    match words.next() {
        Some("query" | "mutation") => words.next().unwrap_or_default(),
        _ => "",
    }
}

/// `POST /files/{entity}/{project}/{run}/file_stream`.
pub(super) fn file_stream(state: &State, path: &str, body: &[u8], serial: u64) -> Reply {
    let run = path.strip_prefix("/files/").and_then(|rest| rest.strip_suffix("/file_stream"));
    let Some(name) = run else { return reply::text(StatusCode::NOT_FOUND, "404 page not found") };
    let Ok(request) = serde_json::from_slice::<Value>(body) else {
        return reply::text(StatusCode::BAD_REQUEST, "the request is not JSON");
    };
    let mut stats = state.stats();
    let Some(run) = stats.run(name) else {
        return reply::text(StatusCode::INSUFFICIENT_STORAGE, "too many runs");
    };
    run.token(serial);
    let history = &request["files"]["wandb-history.jsonl"];
    if let Some(rows) = history["content"].as_array() {
        let offset = history["offset"].as_u64().and_then(|offset| usize::try_from(offset).ok());
        let rows = rows.iter().filter_map(Value::as_str).map(str::to_owned);
        run.history(offset.unwrap_or_default(), rows);
    }
    if request["complete"] == true {
        run.complete = true;
        run.exit_code = request["exitcode"].as_i64();
    }
    reply::ok(&json!({ "exitcode": null, "limits": {} }))
}

/// `PUT /storage/{key}/{entity}/{project}/{run}/{file}`, or `/storage/{key}/artifact/{id}/{file}`: counted, and kept if it is
/// small. The key stands for a signature.
pub(super) async fn upload(state: &State, request: Request<Incoming>, path: &str) -> Reply {
    let Some(path) = signed(state, path) else {
        return reply::text(StatusCode::FORBIDDEN, "this server did not issue the upload URL");
    };
    let (bytes, content) = match receive(request.into_body()).await {
        Ok(received) => received,
        Err(reply) => return reply,
    };
    let missing = || reply::text(StatusCode::NOT_FOUND, "404 page not found");
    if let Some(path) = path.strip_prefix("artifact/") {
        let stored = state.artifacts().uploaded(path, content.into());
        return stored.map_or_else(missing, |()| reply::text(StatusCode::OK, ""));
    }
    let parts: Vec<_> = path.splitn(4, '/').collect();
    let [entity, project, run, file] = parts[..] else { return missing() };
    let (run, file) = (format!("{entity}/{project}/{run}"), file.to_owned());
    if bytes <= files::MAX_KEPT {
        state.files().keep(format!("{run}/{file}"), content);
    }
    let mut stats = state.stats();
    if let Some(run) = stats.run(&run)
        && run.files.len() < MAX_FILES
    {
        run.files.insert(file, bytes);
    }
    reply::text(StatusCode::OK, "")
}

/// `GET /storage/{key}/artifact/{id}/{file}`.
pub(super) fn stored(state: &State, path: &str) -> Reply {
    let path = signed(state, path).and_then(|path| path.strip_prefix("artifact/"));
    match path {
        Some(path) if artifacts::is_manifest(path) || state.settings().signed_downloads => {
            state.stats().artifact_downloads.add("signed");
            let found = state.artifacts().stored(path);
            found.unwrap_or_else(|| reply::text(StatusCode::NOT_FOUND, "404 page not found"))
        }
        _ => reply::text(StatusCode::FORBIDDEN, "the signature has expired"),
    }
}

/// What follows the signature.
fn signed<'a>(state: &State, path: &'a str) -> Option<&'a str> {
    path.strip_prefix("/storage/")?.strip_prefix(&state.upload_key)?.strip_prefix('/')
}

/// How long a body is, and as much of it as is kept.
async fn receive(mut body: Incoming) -> Result<(u64, Vec<u8>), Reply> {
    let (mut bytes, mut content) = (0, Vec::new());
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| reply::text(StatusCode::BAD_REQUEST, "the upload was cut off"))?;
        bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
        if let Some(data) = frame.data_ref().filter(|_| bytes <= files::MAX_KEPT) {
            content.extend_from_slice(data);
        }
        if bytes > MAX_UPLOAD {
            return Err(reply::text(StatusCode::PAYLOAD_TOO_LARGE, "the upload is too large"));
        }
    }
    Ok((bytes, content))
}

/// The entity of a run if the client names none.
const ENTITY: &str = "sandbox";

const MAX_UPLOAD: u64 = 256 * 1024 * 1024;
const MAX_FILES: usize = 1_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operation_is_known_by_its_name_or_its_text() {
        assert_eq!(operation(&json!({ "operationName": "Viewer", "query": "query X { }" })), "Viewer");
        assert_eq!(
            operation(&json!({ "operationName": "", "query": "query GetViewer {viewer}" })),
            "GetViewer"
        );
        assert_eq!(operation(&json!({ "query": "\n mutation UpsertModel($a: B) {}" })), "UpsertModel");
        assert_eq!(operation(&json!({ "query": "{ viewer { id } }" })), "");
        assert_eq!(operation(&json!({ "query": "#graphql\n query Run($a: B) {}" })), "Run");
    }
}
