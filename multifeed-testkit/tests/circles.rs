//! No module of a crate leads back to itself by way of others, apart from a module and its own children.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use syn::visit::{self, Visit};
use syn::{Attribute, Item, ItemUse, Meta, UseTree, Visibility};

/// A module's path below its crate; the crate itself has none. What is written within a file is the file's.
type Module = Vec<String>;

/// The modules that have a file, and what is in it.
type Files = BTreeMap<Module, syn::File>;

/// What a file takes from elsewhere: the module it is in there, and the path as it is written.
#[derive(Default)]
struct Taken {
    inner: Module,
    paths: Vec<(Module, Vec<String>)>,
    /// What it gives on under a name of its own.
    given_on: BTreeMap<String, Vec<String>>,
}

fn is_for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| match &attribute.meta {
        Meta::List(list) if list.path.is_ident("cfg") => {
            let condition = list.tokens.to_string();
            condition == "test" || condition.starts_with("all (test") || condition.starts_with("all(test")
        }
        _ => false,
    })
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        _ => &[],
    }
}

/// All paths of a `use`, each with the name that it has here.
fn flat(tree: &UseTree, before: &[String], out: &mut Vec<(Vec<String>, String)>) {
    let with = |name: String| [before, &[name]].concat();
    match tree {
        UseTree::Path(path) => flat(&path.tree, &with(path.ident.to_string()), out),
        UseTree::Group(group) => group.items.iter().for_each(|tree| flat(tree, before, out)),
        UseTree::Name(name) if name.ident == "self" => {
            out.push((before.to_vec(), before.last().cloned().unwrap_or_default()));
        }
        UseTree::Name(name) => out.push((with(name.ident.to_string()), name.ident.to_string())),
        UseTree::Rename(name) => out.push((with(name.ident.to_string()), name.rename.to_string())),
        UseTree::Glob(_) => out.push((before.to_vec(), String::new())),
    }
}

impl<'a> Visit<'a> for Taken {
    fn visit_item(&mut self, item: &'a Item) {
        if !is_for_tests(attributes(item)) {
            visit::visit_item(self, item);
        }
    }

    fn visit_item_mod(&mut self, module: &'a syn::ItemMod) {
        self.inner.push(module.ident.to_string());
        visit::visit_item_mod(self, module);
        self.inner.pop();
    }

    fn visit_item_use(&mut self, item: &'a ItemUse) {
        let mut paths = Vec::new();
        flat(&item.tree, &[], &mut paths);
        for (path, name) in paths {
            if self.inner.is_empty() {
                self.given_on.insert(name, path.clone());
            }
            if matches!(item.vis, Visibility::Inherited) {
                self.paths.push((self.inner.clone(), path));
            }
        }
    }

    fn visit_path(&mut self, path: &'a syn::Path) {
        let path: Vec<_> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        if path.len() > 1 {
            self.paths.push((self.inner.clone(), path));
        }
    }
}

/// The module with a file that a path leads to, if it is one of this crate.
fn resolve(
    files: &BTreeMap<Module, Taken>,
    (file, inner): (&Module, &Module),
    path: &[String],
    steps: u8,
) -> Option<Module> {
    let mut at = [file.as_slice(), inner].concat();
    let mut rest = path;
    match path.first()?.as_str() {
        "crate" => (at, rest) = (Vec::new(), &path[1..]),
        "self" => rest = &path[1..],
        "super" => {
            while rest.first().is_some_and(|part| part == "super") {
                at.pop();
                rest = &rest[1..];
            }
        }
        first if files.contains_key(&[at.as_slice(), &[first.to_owned()]].concat()) => {}
        _ => return None,
    }
    while let Some((first, others)) = rest.split_first() {
        let child = [at.as_slice(), std::slice::from_ref(first)].concat();
        if !files.contains_key(&child) {
            break;
        }
        (at, rest) = (child, others);
    }
    // It may be there by another name only.
    if let Some(given) = rest.first().and_then(|name| files.get(&at)?.given_on.get(name))
        && steps > 0
        && let Some(found) = resolve(files, (&at, &Vec::new()), given, steps - 1)
    {
        return Some(found);
    }
    while !files.contains_key(&at) {
        at.pop()?;
    }
    Some(at)
}

/// Which modules take something from which others, without a module and those within it.
fn graph(files: &Files) -> BTreeMap<Module, BTreeSet<Module>> {
    let taken: BTreeMap<_, _> = files
        .iter()
        .map(|(module, file)| {
            let mut taken = Taken::default();
            taken.visit_file(file);
            (module.clone(), taken)
        })
        .collect();
    let is_kin = |a: &Module, b: &Module| a.starts_with(b) || b.starts_with(a);
    let from = |module: &Module| {
        let paths = taken[module].paths.iter();
        let found = paths.filter_map(|(inner, path)| resolve(&taken, (module, inner), path, 4));
        found.filter(|found| !is_kin(found, module)).collect()
    };
    files.keys().map(|module| (module.clone(), from(module))).collect()
}

/// A way that leads back to where it began.
fn circle(graph: &BTreeMap<Module, BTreeSet<Module>>) -> Option<Vec<String>> {
    fn walk<'a>(
        graph: &'a BTreeMap<Module, BTreeSet<Module>>,
        at: &'a Module,
        way: &mut Vec<&'a Module>,
        done: &mut BTreeSet<&'a Module>,
    ) -> Option<Vec<String>> {
        if let Some(start) = way.iter().position(|module| *module == at) {
            return Some(way[start..].iter().map(|module| module.join("::")).collect());
        }
        if done.contains(at) {
            return None;
        }
        way.push(at);
        let found = graph[at].iter().find_map(|next| walk(graph, next, way, done));
        way.pop();
        done.insert(at);
        found
    }
    let mut done = BTreeSet::new();
    graph.keys().find_map(|module| walk(graph, module, &mut Vec::new(), &mut done))
}

/// Reads a module's file, and those of the modules that it declares.
fn read(file: &Path, folder: &Path, module: &Module, files: &mut Files) {
    let text = fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let parsed = syn::parse_file(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    for item in &parsed.items {
        let Item::Mod(child) = item else { continue };
        let is_elsewhere = child.attrs.iter().any(|attribute| attribute.path().is_ident("path"));
        if child.content.is_some() || is_elsewhere || is_for_tests(&child.attrs) {
            continue;
        }
        let name = child.ident.to_string();
        let below = folder.join(&name);
        let flat = folder.join(format!("{name}.rs"));
        let file: PathBuf = if flat.exists() { flat } else { below.join("mod.rs") };
        read(&file, &below, &[module.as_slice(), &[name]].concat(), files);
    }
    files.insert(module.clone(), parsed);
}

#[test]
fn no_module_leads_back_to_itself() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut crates = 0;
    for name in fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()) {
        let src = name.join("src");
        let Some(start) = ["lib.rs", "main.rs"].map(|file| src.join(file)).into_iter().find(|file| file.exists())
        else {
            continue;
        };
        let mut files = Files::new();
        read(&start, &src, &Vec::new(), &mut files);
        let graph = graph(&files);
        assert!(files.len() < 10 || graph.values().any(|to| to.len() > 1), "{}: nothing was found", name.display());
        assert_eq!(circle(&graph), None, "{}", name.display());
        crates += 1;
    }
    assert!(crates >= 9, "{crates} crates");
}

#[test]
fn a_circle_is_found_however_it_is_written() {
    let parse = |files: &[(&str, &str)]| -> Files {
        let module = |name: &str| name.split("::").filter(|part| !part.is_empty()).map(str::to_owned).collect();
        files.iter().map(|(name, text)| (module(name), syn::parse_file(text).unwrap())).collect()
    };
    let lib = ("", "mod a; mod b; pub use b::B;");
    for a in [
        "use crate::b::B;",
        "use crate::{x, b::{self, B}};",
        "use super::b::*;",
        "use crate::B;",
        "fn a(b: crate::b::B) {}",
        "mod inner { use super::super::b::B; }",
        "mod inner { fn a(b: crate::B) {} }",
    ] {
        for b in ["use super::a;", "fn b() { crate::a::f() }", "use crate::c::f;"] {
            let files = parse(&[lib, ("a", a), ("b", b), ("c", "use crate::a::f;")]);
            let circle = circle(&graph(&files)).unwrap_or_else(|| panic!("{a} {b}"));
            assert!(circle.contains(&"a".to_owned()) && circle.contains(&"b".to_owned()), "{circle:?}");
        }
        for b in ["use super::c;", "#[cfg(test)] mod tests { use super::super::a; }", "pub use super::a::A;"] {
            assert_eq!(circle(&graph(&parse(&[lib, ("a", a), ("b", b), ("c", "")]))), None, "{a} {b}");
        }
    }
    // A module and its own children may know each other.
    let files = [("", "mod a;"), ("a", "mod b; use b::B; fn f() {}"), ("a::b", "use super::f; use crate::a::g;")];
    assert_eq!(circle(&graph(&parse(&files))), None);
}
