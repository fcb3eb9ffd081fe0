//! Artifacts: versions of a collection, with a manifest and files that clients upload and fetch again. The operations are
//! those of wandb 0.12.21 to 0.31.0.

use bytes::Bytes;
use hyper::StatusCode;
use serde_json::{Value, json};

use super::reply::{self, Reply};
use super::server::State;

#[derive(Default)]
pub(super) struct Artifacts(Vec<Artifact>);

struct Artifact {
    entity: String,
    project: String,
    collection: String,
    kind: String,
    digest: String,
    description: Value,
    metadata: Value,
    aliases: Vec<String>,
    /// Its number in the collection, once it is whole.
    version: Option<usize>,
    files: Vec<File>,
}

struct File {
    name: String,
    /// Hexadecimal, as the path of a download has it. None for the manifest.
    md5: Option<String>,
    content: Option<Bytes>,
}

impl Artifacts {
    fn get(&mut self, id: &str) -> Option<&mut Artifact> {
        self.0.get_mut(index(id)?)
    }

    /// By `COLLECTION:ALIAS`, where the alias may be a version.
    fn named(&self, entity: &str, project: &str, name: &str) -> Option<usize> {
        let (collection, alias) = name.split_once(':').unwrap_or((name, "latest"));
        let is = |artifact: &Artifact| {
            (artifact.entity.as_str(), artifact.project.as_str(), artifact.collection.as_str())
                == (entity, project, collection)
                && artifact.is_called(alias)
        };
        self.0.iter().rposition(is)
    }

    /// What was uploaded under a signed address.
    pub(super) fn uploaded(&mut self, path: &str, content: Bytes) -> Option<()> {
        let (id, name) = path.split_once('/')?;
        self.get(id)?.file(name)?.content = Some(content);
        Some(())
    }

    /// `GET /storage/{key}/artifact/{id}/{name}`: what a signed address leads to.
    pub(super) fn stored(&mut self, path: &str) -> Option<Reply> {
        let (id, name) = path.split_once('/')?;
        Some(download(self.get(id)?.file(name)?.content.clone()?))
    }

    /// `GET /artifacts/{entity}/{md5}`, or `/artifactsV2/{region}/{entity}/…/{md5}`: the way for a
    /// client that is signed in and has no signed address.
    pub(super) fn download(&self, path: &str) -> Reply {
        let segments: Vec<_> = path.trim_start_matches('/').split('/').collect();
        // Newer clients add the file's name.
        let last = segments.iter().rev().take(2);
        let wanted = |file: &&File| last.clone().any(|segment| file.md5.as_deref() == Some(*segment));
        let mut files = self.0.iter().flat_map(|artifact| &artifact.files);
        match files.find(wanted).and_then(|file| file.content.clone()) {
            Some(content) => download(content),
            None => not_found(),
        }
    }
}

impl Artifact {
    fn is_called(&self, alias: &str) -> bool {
        self.version.is_some() && self.aliases.iter().any(|own| own == alias)
    }

    fn file(&mut self, name: &str) -> Option<&mut File> {
        self.files.iter_mut().find(|file| file.name == name)
    }

    fn expect(&mut self, name: &str, md5: Option<String>) {
        if self.files.len() < MAX_FILES && self.file(name).is_none() {
            self.files.push(File { name: name.to_owned(), md5, content: None });
        }
    }
}

/// Whether a path in the storage is that of a manifest.
pub(super) fn is_manifest(path: &str) -> bool {
    path.ends_with(MANIFEST)
}

/// The answer's `data`; `None` if the operation is not about artifacts.
pub(super) fn graphql(state: &State, operation: &str, variables: &Value) -> Option<Value> {
    let mut artifacts = state.artifacts();
    // Newer clients put everything into one variable.
    let input = if variables["input"].is_object() { &variables["input"] } else { variables };
    let text = |names: &[&str]| {
        let found = names.iter().find_map(|name| input[name].as_str());
        found.unwrap_or_default().to_owned()
    };
    let id = text(&["artifactID", "artifactId", "artifact_id", "id"]);
    Some(match operation {
        "CreateArtifact" => json!({ "createArtifact": { "artifact": create(&mut artifacts, input, &text) } }),
        "CreateArtifactManifest" | "UpdateArtifactManifest" => {
            let id = if id.is_empty() { text(&["artifactManifestID"]) } else { id };
            artifacts.get(&id)?.expect(MANIFEST, None);
            let file = json!({ "id": MANIFEST, "name": MANIFEST, "displayName": MANIFEST, "uploadHeaders": [],
                "uploadUrl": address(state, &id, MANIFEST) });
            let field =
                if operation.starts_with('C') { "createArtifactManifest" } else { "updateArtifactManifest" };
            json!({ field: { "artifactManifest": { "id": id, "file": file } } })
        }
        "CreateArtifactFiles" => {
            let wanted: Vec<_> = input["artifactFiles"].as_array().into_iter().flatten().collect();
            let mut edges = Vec::new();
            for file in wanted {
                let (id, name) = (file["artifactID"].as_str()?, file["name"].as_str()?);
                artifacts.get(id)?.expect(name, file["md5"].as_str().map(hexadecimal));
                edges.push(json!({ "node": { "id": name, "name": name, "displayName": name,
                    "storagePath": format!("artifact/{id}/{name}"), "uploadUrl": address(state, id, name),
                    "uploadHeaders": [], "uploadMultipartUrls": null, "artifact": { "id": id } } }));
            }
            json!({ "createArtifactFiles": { "files": { "edges": edges } } })
        }
        "CommitArtifact" => {
            let digest = commit(&mut artifacts, &id)?;
            json!({ "commitArtifact": { "artifact": { "id": id, "digest": digest } } })
        }
        "UseArtifact" => {
            json!({ "useArtifact": { "artifact": { "id": id, "digest": artifacts.get(&id)?.digest } } })
        }
        "ArtifactByID"
        | "ArtifactByIDShort"
        | "ArtifactWithCurrentManifest"
        | "Artifact"
        | "ArtifactType"
        | "ArtifactByName" => match index(&id) {
            Some(index) if artifacts.0.len() > index => {
                json!({ "artifact": shown(state, &artifacts.0[index], index) })
            }
            _ => {
                let found = named(&artifacts, variables);
                json!({ "project": { "artifact": found.map(|index| shown(state, &artifacts.0[index], index)) } })
            }
        },
        "ArtifactMembershipByName" | "ArtifactCollectionMembershipByName" => {
            let membership = named(&artifacts, variables).map(|index| {
                let artifact = &artifacts.0[index];
                json!({ "__typename": "ArtifactCollectionMembership", "id": id_of(index), "versionIndex": artifact.version,
                    "createdAt": CREATED, "aliases": aliases(artifact), "artifactCollection": collection(artifact),
                    "artifact": shown(state, artifact, index) })
            });
            json!({ "project": { "artifactCollectionMembership": membership } })
        }
        "FetchArtifactManifest" | "ArtifactManifest" => {
            let index = index(&id).or_else(|| named(&artifacts, variables))?;
            let manifest = json!({ "currentManifest": manifest(state, index) });
            json!({ "artifact": manifest, "project": { "artifact": manifest } })
        }
        "GetArtifactMembershipFileUrls"
        | "ArtifactCollectionMembershipFileUrls"
        | "ArtifactFileURLs"
        | "ArtifactFileUrls"
        | "GetArtifactFileUrls"
        | "GetArtifactFiles" => {
            let index = index(&id).or_else(|| named(&artifacts, variables))?;
            let artifact = artifacts.0.get(index)?;
            let files: Vec<_> = artifact.files.iter().filter(|file| file.md5.is_some()).collect();
            let edges: Vec<_> = files
                .iter()
                .map(|file| {
                    json!({ "node": { "__typename": "File", "id": file.name, "name": file.name,
                    "directUrl": address(state, &id_of(index), &file.name) } })
                })
                .collect();
            let files = json!({ "pageInfo": { "__typename": "PageInfo", "hasNextPage": false, "endCursor": null },
                "edges": edges });
            json!({
                "artifact": { "files": files },
                "project": { "artifactCollection": { "__typename": "ArtifactSequence",
                    "artifactMembership": { "files": files } } },
            })
        }
        "FetchArtifactDigestAlgorithm" => json!({ "project": { "artifactType": null } }),
        // What fields a server has: those of its first version.
        "ProbeServerProjectInfo" => json!({ "ProjectInfoType": { "fields": [] } }),
        "TypeInfo" => json!({ "__type": type_info(variables["name"].as_str().unwrap_or_default()) }),
        "ProbeServerArtifact" => json!({ "ArtifactInfoType": { "fields": [] } }),
        "ProbeServerCreateArtifactInput" => json!({ "CreateArtifactInputInfoType": { "inputFields": [] } }),
        "ProbeServerCreateArtifactFileSpecInput" => {
            json!({ "CreateArtifactFileSpecInputInfoType": { "inputFields": [] } })
        }
        "InputFields" | "TypeFields" => json!({ "TypeInfo": { "inputFields": [], "fields": [] } }),
        "ClientIDMapping" => json!({ "clientIDMapping": null }),
        "XXHashDigestsEnabled" => json!({ "entity": { "xxhashDigestsEnabled": false } }),
        _ => return None,
    })
}

fn create(artifacts: &mut Artifacts, input: &Value, text: &dyn Fn(&[&str]) -> String) -> Option<Value> {
    let collections = &input["artifactCollectionNames"];
    let collection = match collections[0].as_str() {
        Some(first) => first.to_owned(),
        None => text(&["artifactCollectionName"]),
    };
    let aliases = input["aliases"].as_array().into_iter().flatten();
    let artifact = Artifact {
        entity: text(&["entityName"]),
        project: text(&["projectName"]),
        kind: text(&["artifactTypeName"]),
        digest: text(&["digest"]),
        description: input["description"].clone(),
        metadata: input["metadata"].clone(),
        aliases: aliases.filter_map(|alias| alias["alias"].as_str()).map(str::to_owned).collect(),
        version: None,
        files: Vec::new(),
        collection,
    };
    let latest = artifacts.named(&artifact.entity, &artifact.project, &artifact.collection);
    // The same content is the same version.
    let index = match latest.filter(|index| artifacts.0[*index].digest == artifact.digest) {
        Some(same) => same,
        None if artifacts.0.len() < MAX_ARTIFACTS => {
            artifacts.0.push(artifact);
            artifacts.0.len() - 1
        }
        None => return None,
    };
    let made = &artifacts.0[index];
    let latest =
        latest.map(|index| json!({ "id": id_of(index), "versionIndex": artifacts.0[index].version }));
    Some(json!({
        "id": id_of(index), "digest": made.digest, "state": state_of(made), "aliases": [],
        "artifactSequence": { "id": made.collection, "name": made.collection, "latestArtifact": latest },
    }))
}

/// Makes it a version. An alias is where it was put last.
fn commit(artifacts: &mut Artifacts, id: &str) -> Option<String> {
    let index = index(id)?;
    let (entity, project, collection, given) = {
        let artifact = artifacts.0.get(index)?;
        let name = artifact.collection.clone();
        (artifact.entity.clone(), artifact.project.clone(), name, artifact.aliases.clone())
    };
    let mut whole = 0;
    for (other, artifact) in artifacts.0.iter_mut().enumerate() {
        let same =
            (&artifact.entity, &artifact.project, &artifact.collection) == (&entity, &project, &collection);
        if other != index && same && artifact.version.is_some() {
            whole += 1;
            artifact.aliases.retain(|alias| !given.contains(alias));
        }
    }
    let artifact = &mut artifacts.0[index];
    if artifact.version.is_none() {
        artifact.version = Some(whole);
        artifact.aliases.push(format!("v{whole}"));
    }
    Some(artifact.digest.clone())
}

/// The one that a query names.
fn named(artifacts: &Artifacts, variables: &Value) -> Option<usize> {
    let text = |names: &[&str]| names.iter().find_map(|name| variables[name].as_str()).unwrap_or_default();
    let (entity, project) = (text(&["entityName", "entity"]), text(&["projectName", "project"]));
    let name = match (text(&["collection", "collectionName"]), text(&["alias", "aliasName"])) {
        ("", _) => text(&["name", "artifactName"]).to_owned(),
        (collection, alias) => format!("{collection}:{alias}"),
    };
    // Some give the whole path.
    let name = name.rsplit('/').next().unwrap_or_default();
    artifacts.named(entity, project, name)
}

fn shown(state: &State, artifact: &Artifact, index: usize) -> Value {
    let sizes =
        artifact.files.iter().filter(|file| file.md5.is_some()).filter_map(|file| file.content.as_ref());
    let aliases: Vec<_> = artifact
        .aliases
        .iter()
        .map(|alias| {
            json!({ "__typename": "ArtifactAlias", "id": alias, "alias": alias,
            "artifactCollectionName": artifact.collection, "artifactCollection": collection(artifact) })
        })
        .collect();
    json!({
        "__typename": "Artifact", "id": id_of(index), "artifactSequence": collection(artifact),
        "versionIndex": artifact.version, "artifactType": { "id": artifact.kind, "name": artifact.kind },
        "description": artifact.description, "metadata": artifact.metadata, "ttlDurationSeconds": -2,
        "ttlIsInherited": true, "tags": [], "historyStep": null, "state": state_of(artifact),
        "size": sizes.clone().map(Bytes::len).sum::<usize>(), "digest": artifact.digest,
        "digestAlgorithm": "MANIFEST_MD5", "commitHash": "", "fileCount": sizes.count(), "createdAt": CREATED,
        "updatedAt": CREATED, "aliases": aliases, "labels": [], "currentManifest": manifest(state, index),
    })
}

/// What wandb 0.22.3 asks, to leave out what a server does not know.
fn type_info(name: &str) -> Value {
    const ARTIFACT: [&str; 5] = ["ttlDurationSeconds", "ttlIsInherited", "aliases", "tags", "historyStep"];
    let fields: Vec<_> = match name {
        "Artifact" => ARTIFACT.iter().map(|field| json!({ "name": field, "args": [] })).collect(),
        _ => Vec::new(),
    };
    json!({ "name": name, "fields": fields, "inputFields": [] })
}

fn manifest(state: &State, index: usize) -> Value {
    let file = json!({ "id": MANIFEST, "directUrl": address(state, &id_of(index), MANIFEST) });
    json!({ "id": id_of(index), "file": file })
}

fn aliases(artifact: &Artifact) -> Vec<Value> {
    let alias = |alias: &String| json!({ "__typename": "ArtifactAlias", "id": alias, "alias": alias });
    artifact.aliases.iter().map(alias).collect()
}

fn collection(artifact: &Artifact) -> Value {
    json!({ "__typename": "ArtifactSequence", "id": artifact.collection, "name": artifact.collection,
        "project": { "id": artifact.project, "internalId": "UHJvamVjdDox", "name": artifact.project,
            "entityName": artifact.entity, "entity": { "name": artifact.entity } } })
}

fn state_of(artifact: &Artifact) -> &'static str {
    if artifact.version.is_some() { "COMMITTED" } else { "PENDING" }
}

/// An address with a signature, as a storage service would have it.
fn address(state: &State, id: &str, name: &str) -> String {
    format!("{}/storage/{}/artifact/{id}/{name}", state.url, state.upload_key)
}

fn id_of(index: usize) -> String {
    format!("artifact{index}")
}

fn index(id: &str) -> Option<usize> {
    id.strip_prefix("artifact")?.parse().ok()
}

/// A digest in a manifest is Base64.
fn hexadecimal(md5: &str) -> String {
    use base64::Engine as _;
    let bytes = base64::engine::general_purpose::STANDARD.decode(md5).unwrap_or_default();
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn download(content: Bytes) -> Reply {
    reply::bytes(StatusCode::OK, "application/octet-stream", content)
}

fn not_found() -> Reply {
    reply::text(StatusCode::NOT_FOUND, "404 page not found")
}

const MANIFEST: &str = "wandb_manifest.json";
const CREATED: &str = "2026-01-01T00:00:00Z";
const MAX_ARTIFACTS: usize = 1_000;
const MAX_FILES: usize = 1_000;
