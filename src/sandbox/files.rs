//! Small files that clients have uploaded, and where to get them: at the server itself, for whoever is signed in.

use std::collections::BTreeMap;

use hyper::StatusCode;
use serde_json::{Value, json};

use super::reply::{self, Reply};

/// By `ENTITY/PROJECT/RUN/NAME`.
#[derive(Default)]
pub(super) struct Files(BTreeMap<String, Vec<u8>>);

impl Files {
    pub(super) fn keep(&mut self, path: String, content: Vec<u8>) {
        if self.0.len() < MAX_FILES {
            self.0.insert(path, content);
        }
    }

    /// `GET /files/{entity}/{project}/{run}/{file}`.
    pub(super) fn download(&self, path: &str) -> Reply {
        match path.strip_prefix("/files/").and_then(|path| self.0.get(path)) {
            Some(content) => reply::bytes(StatusCode::OK, "application/octet-stream", content.clone().into()),
            None => reply::text(StatusCode::NOT_FOUND, "404 page not found"),
        }
    }

    /// A run's files, or those that `fileNames` names, as GraphQL lists them.
    pub(super) fn listed(&self, url: &str, run: &str, variables: &Value) -> Value {
        let wanted: Vec<_> =
            variables["fileNames"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let own = self.0.iter().filter_map(|(path, content)| {
            let name = path.strip_prefix(run)?.strip_prefix('/')?;
            (wanted.is_empty() || wanted.contains(&name)).then_some((path, name, content))
        });
        let edges: Vec<_> = own
            .map(|(path, name, content)| {
                let address = format!("{url}/files/{path}");
                json!({ "cursor": name, "node": {
                    "id": name, "name": name, "url": address, "directUrl": address, "sizeBytes": content.len(),
                    "mimetype": "application/octet-stream", "updatedAt": null, "md5": null,
                } })
            })
            .collect();
        json!({ "edges": edges, "pageInfo": { "endCursor": null, "hasNextPage": false } })
    }
}

pub(super) const MAX_KEPT: u64 = 64 * 1024;
const MAX_FILES: usize = 1_000;
