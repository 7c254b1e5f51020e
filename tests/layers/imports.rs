//! Which folder may import which, and which crates.

use crate::paths::{self, Named};
use crate::source::Source;

/// A folder of `src`, and what it may know.
pub(crate) struct Layer {
    pub folder: &'static str,
    /// Folders above it in the table: so there is no circle.
    pub knows: &'static [&'static str],
    /// Crates that it must not know.
    pub without: &'static [&'static str],
}

const TRANSPORTS: &[&str] = &["tonic_types", "axum", "http", "clap"];
const PLAIN: &[&str] = &["sqlx", "tonic", "tonic_types", "prost", "axum", "http", "clap"];
const NOT_SQL: &[&str] = &["sqlx", "clap"];

/// From the bottom to the top.
#[rustfmt::skip]
pub(crate) const LAYERS: &[Layer] = &[
    Layer { folder: "domain", knows: &[], without: PLAIN },
    Layer { folder: "memory", knows: &["domain"], without: NOT_SQL },
    Layer { folder: "reload", knows: &["domain"], without: NOT_SQL },
    Layer { folder: "proto", knows: &["domain"], without: NOT_SQL },
    // Metrics, traces and the log know what is counted, and nothing that counts.
    Layer { folder: "observe", knows: &["domain", "memory"], without: &["sqlx"] },
    Layer { folder: "net", knows: &["domain", "memory", "reload", "observe"], without: NOT_SQL },
    Layer { folder: "store", knows: &["domain", "memory"], without: TRANSPORTS },
    Layer { folder: "broker", knows: &["domain", "memory", "observe", "store"], without: PLAIN },
    Layer { folder: "auth", knows: &["domain", "reload", "observe"], without: PLAIN },
    Layer { folder: "api", knows: &["domain", "memory", "observe", "proto", "net", "broker", "auth"], without: NOT_SQL },
    // Of the service it knows the generated clients and the error table only.
    Layer { folder: "gateway", knows: &["domain", "memory", "observe", "net"], without: NOT_SQL },
    Layer { folder: "config", knows: &["domain", "memory", "reload", "observe", "net", "store", "broker", "auth", "api", "gateway"], without: &["sqlx"] },
    Layer { folder: "doctor", knows: &["domain", "store", "broker", "config"], without: &["sqlx"] },
    Layer { folder: "app", knows: &["domain", "memory", "reload", "observe", "net", "store", "broker", "auth", "api", "gateway", "config", "doctor"], without: &["sqlx"] },
];

/// A file that knows less than its folder: these folders, and nothing else of the service.
struct Leaf {
    file: &'static str,
    knows: &'static [&'static str],
}

const LEAVES: &[Leaf] = &[
    Leaf { file: "reload/http_get.rs", knows: &[] },
    Leaf { file: "observe/log_limit.rs", knows: &[] },
    Leaf { file: "observe/traceparent.rs", knows: &["domain"] },
    Leaf { file: "observe/spans.rs", knows: &["domain"] },
    Leaf { file: "net/readiness.rs", knows: &[] },
    Leaf { file: "net/compression.rs", knows: &["domain", "memory"] },
];
/// Keys come from elsewhere through it; nothing that serves calls may fetch anything.
const FETCH: &str = "reload::http_get";
const FETCHES: &[&str] = &["reload", "config"];

/// The folders that speak the generated API.
const SPEAK_THE_API: &[&str] = &["api", "gateway", "proto"];

/// Imports in a file of the service that its folder must not have.
pub(crate) fn forbidden_in_service(source: &Source) -> Vec<String> {
    let file = source.file.trim_start_matches("src/");
    let found = paths::of(&source.text, &paths::module_of(file));
    let layer = LAYERS.iter().find(|layer| file.starts_with(&format!("{}/", layer.folder)));
    let leaf = LEAVES.iter().find(|leaf| leaf.file == file);
    let fault = |path: &Named| fault(layer, path).or_else(|| leaf?.fault(path));
    found.iter().filter_map(|path| Some(said(source, path, fault(path)?))).collect()
}

impl Leaf {
    fn fault(&self, path: &Named) -> Option<String> {
        let inside = path.inside()?;
        let own = inside.join("::").starts_with(&paths::module_of(self.file).join("::"));
        let known = own || self.knows.iter().any(|folder| inside.first().is_some_and(|first| first == folder));
        (!known).then(|| format!("{} knows nothing but [{}]", self.file, self.knows.join(", ")))
    }
}

fn fault(layer: Option<&Layer>, path: &Named) -> Option<String> {
    let Some(layer) = layer else {
        // The program and the list of modules.
        let foreign = ["sqlx", "dms_client"].contains(&path.crate_name());
        return foreign.then(|| "the program leaves that to its folders".to_owned());
    };
    let folder = layer.folder;
    if let Some(inside) = path.inside() {
        let other = inside.first()?.as_str();
        if inside.join("::").starts_with(FETCH) && !FETCHES.contains(&folder) {
            return Some(format!("{FETCH} is for {}", FETCHES.join(", ")));
        }
        let known = other == folder || layer.knows.contains(&other);
        return (!known).then(|| format!("{folder} knows {} only", layer.knows.join(", ")));
    }
    let name = path.crate_name();
    if layer.without.contains(&name) {
        return Some(format!("{folder} does not know {name}"));
    }
    let speaks = name != "dms_client" || SPEAK_THE_API.contains(&folder);
    (!speaks).then(|| format!("the generated API is for {}", SPEAK_THE_API.join(", ")))
}

/// A place in the lab, and what it must not know: modules of the lab, and crates.
struct Apart {
    place: &'static str,
    modules: &'static [&'static str],
    crates: &'static [&'static str],
    why: &'static str,
}

const PURE: &[&str] = &["tokio", "tonic", "http", "hyper", "rand", "sqlx", "dms_client", "dms_postgres"];

#[rustfmt::skip]
const LAB: &[Apart] = &[
    Apart { place: "lab/src/harness", modules: &["bench", "chaos", "sql", "config"], crates: &[], why: "harness knows a service from outside only" },
    Apart { place: "lab/src/bench", modules: &["chaos", "config"], crates: &[], why: "the benchmark does not know the fault suite" },
    Apart { place: "lab/src/chaos", modules: &["bench", "config"], crates: &[], why: "the fault suite does not know the benchmark" },
    Apart { place: "lab/src/chaos/checker", modules: &["sql", "harness"], crates: PURE, why: "the checker is pure, and knows the history only" },
    Apart { place: "lab/src/chaos/history.rs", modules: &["sql", "harness"], crates: &[], why: "the history is plain data" },
];

/// Imports in a file of another member that it must not have.
pub(crate) fn forbidden_in_member(source: &Source) -> Vec<String> {
    let inside = source.file.split_once("/src/").map_or(source.file.as_str(), |(_, inside)| inside);
    let found = paths::of(&source.text, &paths::module_of(inside));
    let sql = source.is_in("lab/src/sql");
    let apart: Vec<_> = LAB.iter().filter(|apart| source.is_in(apart.place)).collect();
    let fault = |path: &Named| {
        let (first, name) = (path.inside().and_then(<[String]>::first), path.crate_name());
        match name {
            "dms" => Some("only tests of the root package know the crate dms"),
            "sqlx" if !sql => Some("sqlx is for lab/src/sql only"),
            _ => apart.iter().find_map(|apart| {
                let module = first.is_some_and(|first| apart.modules.contains(&first.as_str()));
                (module || apart.crates.contains(&name)).then_some(apart.why)
            }),
        }
    };
    found.iter().filter_map(|path| Some(said(source, path, fault(path)?.to_owned()))).collect()
}

fn said(source: &Source, path: &Named, why: String) -> String {
    format!("{}:{}: {}: {why}", source.file, path.line, path.segments.join("::"))
}
