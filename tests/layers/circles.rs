//! Circles of imports among the modules of a folder.

use std::collections::{BTreeMap, BTreeSet};

use crate::paths;
use crate::source::Source;

/// Which module imports which.
pub(crate) type Graph = BTreeMap<String, BTreeSet<String>>;

/// The modules right below a folder of the service, and what each imports of the others. What the folder itself has, in its
/// `mod.rs`, is not among them: it holds them together, so it knows them and they know it.
pub(crate) fn of_folder(folder: &str, sources: &[Source]) -> Graph {
    let inside = format!("src/{folder}/");
    let module = |file: &str| Some(paths::module_of(file.strip_prefix("src/")?));
    let own = |file: &str| module(file).and_then(|module| module.get(1).cloned());
    let of_folder = || sources.iter().filter(|source| source.file.starts_with(&inside));
    let mut graph: Graph = of_folder().filter_map(|source| Some((own(&source.file)?, BTreeSet::new()))).collect();
    let modules: BTreeSet<_> = graph.keys().cloned().collect();
    for source in of_folder() {
        let Some(name) = own(&source.file) else { continue };
        let named = paths::of(&source.text, &module(&source.file).unwrap_or_default());
        for other in named.iter().filter_map(|path| sibling(path.inside()?, folder)) {
            if *other != name && modules.contains(other) {
                graph.entry(name.clone()).or_default().insert(other.clone());
            }
        }
    }
    graph
}

fn sibling<'a>(inside: &'a [String], folder: &str) -> Option<&'a String> {
    let [first, second, ..] = inside else { return None };
    (first == folder).then_some(second)
}

/// The modules that reach themselves, each circle once, in order of names.
pub(crate) fn circles(graph: &Graph) -> Vec<Vec<String>> {
    let reached: BTreeMap<_, _> = graph.keys().map(|module| (module, from(graph, module))).collect();
    let mut found = BTreeSet::new();
    for (module, reach) in &reached {
        if reach.contains(*module) {
            let circle = reach.iter().filter(|other| reached.get(other).is_some_and(|back| back.contains(*module)));
            found.insert(circle.cloned().collect::<Vec<_>>());
        }
    }
    found.into_iter().collect()
}

fn from(graph: &Graph, module: &str) -> BTreeSet<String> {
    let (mut reached, mut next) = (BTreeSet::new(), vec![module.to_owned()]);
    while let Some(module) = next.pop() {
        let new = graph.get(&module).into_iter().flatten().filter(|other| reached.insert((*other).clone()));
        next.extend(new.cloned().collect::<Vec<_>>());
    }
    reached
}
