//! Comments of documentation say more than the name and the type of their item.

use std::collections::BTreeSet;

use syn::visit::{self, Visit};
use syn::{Attribute, Expr, Lit, Meta};

use crate::sources::{Source, assert_none, files};

/// Words that say nothing by themselves.
const EMPTY: &[&str] = &[
    "a", "an", "and", "any", "as", "at", "by", "each", "for", "from", "in", "is", "it", "its", "of", "on", "one", "or",
    "that", "the", "their", "these", "this", "to", "was", "were", "what", "which", "with",
];

/// What is left. The lint `missing_docs` asks for a comment where the name says it all.
pub(crate) const MOST_REPEATED: usize = 106;

/// The words of names and types, without endings of plurals: `BackupIds` has "backup" and "id".
fn words(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut word = String::new();
    let mut end = |word: &mut String| {
        let lower = std::mem::take(word).to_lowercase();
        let singular = lower.strip_suffix('s').filter(|word| word.len() > 2 && !word.ends_with('s'));
        found.insert(singular.map_or(lower.clone(), str::to_owned));
    };
    for c in text.chars() {
        if !c.is_alphanumeric() || (c.is_uppercase() && word.ends_with(char::is_lowercase)) {
            end(&mut word);
        }
        if c.is_alphanumeric() {
            word.push(c);
        }
    }
    end(&mut word);
    found.remove("");
    found
}

/// The text of the documentation; `None` if there is none.
fn documentation(attributes: &[Attribute]) -> Option<String> {
    let lines = attributes.iter().filter_map(|attribute| match &attribute.meta {
        Meta::NameValue(value) if attribute.path().is_ident("doc") => match &value.value {
            Expr::Lit(literal) => match &literal.lit {
                Lit::Str(text) => Some(text.value()),
                _ => None,
            },
            _ => None,
        },
        _ => None,
    });
    let lines: Vec<String> = lines.collect();
    (!lines.is_empty()).then(|| lines.join(" "))
}

/// The names in a part of a source, in their order.
#[derive(Default)]
struct Names(Vec<String>);

impl<'ast> Visit<'ast> for Names {
    fn visit_ident(&mut self, name: &'ast proc_macro2::Ident) {
        self.0.push(name.to_string());
    }
}

fn names_of(visit: impl FnOnce(&mut Names)) -> String {
    let mut names = Names::default();
    visit(&mut names);
    names.0.join(" ")
}

/// The name and the types of a function.
fn signature(signature: &syn::Signature) -> String {
    names_of(|names| names.visit_signature(signature))
}

/// A name with its type.
fn typed(name: &str, kind: &syn::Type) -> String {
    format!("{name} {}", names_of(|names| names.visit_type(kind)))
}

/// Collects the comments whose every word is in the signature of their item, or in the name of what contains it.
#[derive(Default)]
struct Reader {
    /// The names of the items around this one.
    around: Vec<String>,
    found: Vec<String>,
}

impl Reader {
    /// The first name of the signature is that of the item.
    fn judge(&mut self, attributes: &[Attribute], signature: &str) {
        let Some(text) = documentation(attributes) else { return };
        // The spelling of PostgreSQL, of a format or of a flag is more than the name.
        let text = text.trim();
        if text.starts_with(['`', '[']) && text.trim_end_matches('.').ends_with(['`', ']']) {
            return;
        }
        let known = words(&format!("{signature} {}", self.around.join(" ")));
        let said = words(text);
        if said.iter().all(|word| EMPTY.contains(&word.as_str()) || known.contains(word)) {
            self.found.push(format!("`{signature}`: {text}"));
        }
    }

    fn within(&mut self, name: &str, visit: impl FnOnce(&mut Self)) {
        self.around.push(name.to_owned());
        visit(self);
        self.around.pop();
    }
}

impl<'ast> Visit<'ast> for Reader {
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if item.ident != "tests" {
            visit::visit_item_mod(self, item);
        }
    }
    fn visit_item_struct(&mut self, item: &'ast syn::ItemStruct) {
        self.judge(&item.attrs, &item.ident.to_string());
        self.within(&item.ident.to_string(), |reader| visit::visit_item_struct(reader, item));
    }
    fn visit_item_enum(&mut self, item: &'ast syn::ItemEnum) {
        self.judge(&item.attrs, &item.ident.to_string());
        self.within(&item.ident.to_string(), |reader| visit::visit_item_enum(reader, item));
    }
    fn visit_item_trait(&mut self, item: &'ast syn::ItemTrait) {
        self.judge(&item.attrs, &item.ident.to_string());
        self.within(&item.ident.to_string(), |reader| visit::visit_item_trait(reader, item));
    }
    fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
        let name = names_of(|names| names.visit_type(&item.self_ty));
        self.within(&name, |reader| visit::visit_item_impl(reader, item));
    }
    fn visit_variant(&mut self, variant: &'ast syn::Variant) {
        self.judge(&variant.attrs, &variant.ident.to_string());
        self.within(&variant.ident.to_string(), |reader| visit::visit_variant(reader, variant));
    }
    fn visit_field(&mut self, field: &'ast syn::Field) {
        let name = field.ident.as_ref().map(ToString::to_string).unwrap_or_default();
        self.judge(&field.attrs, &typed(&name, &field.ty));
    }
    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.judge(&item.attrs, &signature(&item.sig));
    }
    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.judge(&item.attrs, &signature(&item.sig));
    }
    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        self.judge(&item.attrs, &signature(&item.sig));
    }
    fn visit_item_const(&mut self, item: &'ast syn::ItemConst) {
        self.judge(&item.attrs, &typed(&item.ident.to_string(), &item.ty));
    }
    fn visit_item_type(&mut self, item: &'ast syn::ItemType) {
        self.judge(&item.attrs, &typed(&item.ident.to_string(), &item.ty));
    }
}

/// The comments of a source that only repeat names.
fn repeated(file: &Source) -> Vec<String> {
    let syntax = syn::parse_file(&file.text).unwrap_or_else(|error| panic!("{}: {error}", file.path));
    let mut reader = Reader::default();
    reader.visit_file(&syntax);
    reader.found.into_iter().map(|found| format!("{}: {found}", file.path)).collect()
}

/// The comments outside of tests that only repeat names.
pub(crate) fn all_repeated(sources: &[Source]) -> Vec<String> {
    sources.iter().filter(|file| !file.is_test()).flat_map(repeated).collect()
}

/// The measure has the bound; here are the places.
#[test]
fn no_more_comments_only_repeat_a_name() {
    let found = all_repeated(&files(".rs"));
    let complaints = if found.len() > MOST_REPEATED { found } else { Vec::new() };
    assert_none("these comments only repeat the signature; say the unit, the reason, or nothing:", &complaints);
}

#[test]
fn a_repeated_name_is_found() {
    let file = |text: &str| Source { path: "a.rs".to_owned(), text: text.to_owned() };
    let all = "/// The backup.\nstruct Backup {\n    /// Its id.\n    id: BackupId,\n    /// In seconds.\n    age: u64,\n}\n\
               impl Backup {\n    /// The ids of the parents.\n    fn parent_ids(&self) {}\n}\n";
    assert_eq!(
        repeated(&file(all)),
        ["a.rs: `Backup`: The backup.", "a.rs: `id BackupId`: Its id.", "a.rs: `parent_ids`: The ids of the parents."]
    );
}
