//! Which file of a crate uses which other file, read from the paths in its code.
//!
//! Tests are left out, and so are `pub use` lines: a re-export is not a use, and a module's own file is the entrance of
//! its folder. An error may name the object that it is about, and the object reports the error. So the arrows of files
//! called `error.rs` and `format_error.rs` are left out, too.

use std::collections::{BTreeMap, BTreeSet};

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};
use syn::{Attribute, Item, UseTree, Visibility};

use crate::sources::{Source, files};

/// The names of the modules from the crate's root to this one.
type ModulePath = Vec<String>;

/// A re-export may lead to another re-export. No chain in this project is this long.
const LONGEST_CHAIN: usize = 16;

/// Modules of errors.
const ERRORS: [&str; 2] = ["error", "format_error"];

/// What one module defines and uses.
#[derive(Debug, Default)]
struct Module {
    file: String,
    /// Names that `use` brings in, and the paths that they mean.
    names: BTreeMap<String, Vec<String>>,
    /// Paths of `use ...::*`.
    globs: Vec<Vec<String>>,
    /// Names of the items that are defined here.
    items: BTreeSet<String>,
    /// Every path that the code uses.
    paths: BTreeSet<Vec<String>>,
    /// Child modules that exist for tests only.
    test_only: BTreeSet<String>,
}

/// A crate: its modules and the arrows between their files.
#[derive(Debug)]
pub(crate) struct Crate {
    pub(crate) name: String,
    /// From a file to the files that it uses.
    pub(crate) arrows: BTreeMap<String, BTreeSet<String>>,
}

/// Every crate of the project.
pub(crate) fn crates() -> Vec<Crate> {
    let mut sources: BTreeMap<String, Vec<Source>> = BTreeMap::new();
    for file in files(".rs") {
        let Some((name, rest)) = file.path.strip_prefix("crates/").and_then(|path| path.split_once("/src/")) else {
            continue;
        };
        // A program's own file uses the library, never the other way round.
        if rest != "main.rs" && !rest.starts_with("bin/") {
            sources.entry(name.to_owned()).or_default().push(file.clone());
        }
    }
    sources.into_iter().map(|(name, files)| read_crate(name, &files)).collect()
}

fn read_crate(name: String, files: &[Source]) -> Crate {
    let mut modules: BTreeMap<ModulePath, Module> = BTreeMap::new();
    for file in files {
        let (_, inside) = file.path.split_once("/src/").expect("a file of the crate");
        let inside = inside.strip_suffix(".rs").expect("a Rust file");
        let path: ModulePath =
            inside.split('/').filter(|part| !["lib", "mod"].contains(part)).map(str::to_owned).collect();
        let mut module = Module { file: file.path.clone(), ..Module::default() };
        let syntax = syn::parse_file(&file.text).unwrap_or_else(|error| panic!("{}: {error}", file.path));
        Reader { module: &mut module }.visit_file(&syntax);
        modules.insert(path, module);
    }
    let test_only: Vec<ModulePath> = modules
        .iter()
        .flat_map(|(path, module)| {
            module.test_only.iter().map(|child| [path.as_slice(), std::slice::from_ref(child)].concat())
        })
        .collect();
    modules.retain(|path, _| !test_only.iter().any(|test| path.starts_with(test)));

    let mut arrows: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (path, module) in &modules {
        if ERRORS.contains(&path.last().map_or("", String::as_str)) {
            continue;
        }
        let targets = module.paths.iter().filter_map(|used| resolve(&modules, path, used, 0));
        let needed = targets.filter(|target| target != path).map(|target| modules[&target].file.clone()).collect();
        arrows.insert(module.file.clone(), needed);
    }
    Crate { name, arrows }
}

/// The module that defines what a path names, seen from a module; `None` for another crate's.
fn resolve(
    modules: &BTreeMap<ModulePath, Module>,
    from: &[String],
    used: &[String],
    chain: usize,
) -> Option<ModulePath> {
    if chain > LONGEST_CHAIN {
        return None;
    }
    let (first, mut rest) = used.split_first()?;
    let mut at: ModulePath = match first.as_str() {
        "crate" => Vec::new(),
        "self" => from.to_vec(),
        "super" => from.split_last()?.1.to_vec(),
        _ => {
            let child = [from, std::slice::from_ref(first)].concat();
            if !modules.contains_key(&child) && !modules.get(from)?.names.contains_key(first) {
                return None;
            }
            rest = used;
            from.to_vec()
        }
    };
    while let Some((next, after)) = rest.split_first() {
        if next == "super" {
            at.pop();
            rest = after;
            continue;
        }
        let child = [at.as_slice(), std::slice::from_ref(next)].concat();
        if modules.contains_key(&child) {
            at = child;
            rest = after;
            continue;
        }
        let module = modules.get(&at)?;
        if module.items.contains(next) {
            break;
        }
        if let Some(other) = module.names.get(next) {
            let whole = [other.as_slice(), after].concat();
            // The module brings in a name of its own child, which has the same name.
            if whole == used && at == from {
                return None;
            }
            return resolve(modules, &at, &whole, chain + 1);
        }
        return module
            .globs
            .iter()
            .filter_map(|glob| resolve(modules, &at, glob, chain + 1))
            .find(|target| modules[target].items.contains(next))
            .or(Some(at));
    }
    modules.contains_key(&at).then_some(at)
}

/// Reads one file.
struct Reader<'a> {
    module: &'a mut Module,
}

fn is_for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && matches!(&attribute.meta, syn::Meta::List(list) if list.tokens.to_string().contains("test"))
    })
}

impl Reader<'_> {
    fn read_use(&mut self, tree: &UseTree, prefix: &[String], is_reexport: bool) {
        let mut bind = |name: String, path: Vec<String>| {
            if !is_reexport {
                self.module.paths.insert(path.clone());
            }
            self.module.names.insert(name, path);
        };
        match tree {
            UseTree::Path(path) => {
                let prefix = [prefix, &[path.ident.to_string()]].concat();
                self.read_use(&path.tree, &prefix, is_reexport);
            }
            UseTree::Name(name) if name.ident == "self" => {
                bind(prefix.last().cloned().unwrap_or_default(), prefix.to_vec());
            }
            UseTree::Name(name) => bind(name.ident.to_string(), [prefix, &[name.ident.to_string()]].concat()),
            UseTree::Rename(rename) => {
                bind(rename.rename.to_string(), [prefix, &[rename.ident.to_string()]].concat());
            }
            UseTree::Glob(_) => self.module.globs.push(prefix.to_vec()),
            UseTree::Group(group) => {
                for tree in &group.items {
                    self.read_use(tree, prefix, is_reexport);
                }
            }
        }
    }

    /// Paths such as `super::name` in the tokens of a macro call.
    fn read_tokens(&mut self, tokens: TokenStream) {
        let mut path: Vec<String> = Vec::new();
        let mut colons = 0;
        for token in tokens {
            match token {
                TokenTree::Ident(word) => {
                    if colons != 2 {
                        self.add(std::mem::take(&mut path));
                    }
                    path.push(word.to_string());
                    colons = 0;
                }
                TokenTree::Punct(mark) if mark.as_char() == ':' => colons += 1,
                other => {
                    self.add(std::mem::take(&mut path));
                    colons = 0;
                    if let TokenTree::Group(group) = other {
                        self.read_tokens(group.stream());
                    }
                }
            }
        }
        self.add(path);
    }

    fn add(&mut self, path: Vec<String>) {
        if path.len() > 1 {
            self.module.paths.insert(path);
        }
    }

    fn define(&mut self, item: &Item) {
        let name = match item {
            Item::Const(item) => &item.ident,
            Item::Enum(item) => &item.ident,
            Item::Fn(item) => &item.sig.ident,
            Item::Static(item) => &item.ident,
            Item::Struct(item) => &item.ident,
            Item::Trait(item) => &item.ident,
            Item::Type(item) => &item.ident,
            Item::Union(item) => &item.ident,
            _ => return,
        };
        self.module.items.insert(name.to_string());
    }
}

impl<'ast> Visit<'ast> for Reader<'_> {
    fn visit_item(&mut self, item: &'ast Item) {
        let attributes = match item {
            Item::Mod(item) => &item.attrs,
            Item::Fn(item) => &item.attrs,
            Item::Impl(item) => &item.attrs,
            Item::Use(item) => &item.attrs,
            Item::Struct(item) => &item.attrs,
            Item::Const(item) => &item.attrs,
            _ => &Vec::new(),
        };
        if is_for_tests(attributes) {
            if let Item::Mod(item) = item {
                self.module.test_only.insert(item.ident.to_string());
            }
            return;
        }
        self.define(item);
        if let Item::Use(item) = item {
            let is_reexport = !matches!(item.vis, Visibility::Inherited);
            self.read_use(&item.tree, &[], is_reexport);
            return;
        }
        visit::visit_item(self, item);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        if path.leading_colon.is_none() {
            self.add(path.segments.iter().map(|segment| segment.ident.to_string()).collect());
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        self.read_tokens(call.tokens.clone());
        visit::visit_macro(self, call);
    }

    // The path in `pub(in super::super)` is not a use.
    fn visit_visibility(&mut self, _: &'ast Visibility) {}

    // Paths in attributes are not uses of the code.
    fn visit_attribute(&mut self, _: &'ast Attribute) {}
}
