//! Comments, messages, names and documents are plain English: no words that make people read a sentence twice.

use std::collections::BTreeSet;

use crate::sources::{Source, assert_none, files, files_where};

/// What not to write, and what to write instead.
const FORBIDDEN: &[(&str, &str)] = &[
    ("behind", "after, beyond"),
    ("shall", "must, should"),
    ("is none", "is absent, there is no"),
    ("goes on", "continues"),
    ("go on", "continue"),
    ("gone on", "continued"),
    ("in vain", "without success"),
    ("affair", "matter, task"),
    ("told", "informed, reported, known"),
    ("said of", "reported about"),
    ("anew", "again"),
    ("stands in", "is in, is recorded in"),
    ("so long", "this long, as long, until"),
    ("says of", "reports about, records about"),
    ("say of", "report about, record about"),
    ("going on", "continuing, happening"),
    ("went on", "continued"),
    ("besides,", "in addition,"),
    ("belongs into", "belongs in"),
    ("whoever", "anybody who, the person who, no matter who"),
    ("wait no more", "no longer wait"),
    ("waits no more", "no longer waits"),
    ("needs it no more", "no longer needs it"),
    ("so many", "this many, at most N"),
    ("dearest", "most expensive"),
];

/// Where a forbidden word is the right one: a server lags behind another, a proxy stands in front of one.
const RIGHT_USES: &[&str] = &[
    "lag behind",
    "lags behind",
    "lagging behind",
    "falls behind",
    "fall behind",
    "far behind",
    "left behind",
    "leaves behind",
    "leave behind",
    "leaves nothing behind",
    "uploads behind",
    "stays behind",
    "error behind",
    "there is none",
    // Python.
    "numbers is none",
    "name is none",
    "told to",
    "told apart",
    "-anew",
    "can be told",
    "that is behind",
    "behind a link",
    "behind links",
    "standby behind",
    "-behind-",
    "behind a proxy",
    "behind the proxy",
    "is behind this host's",
    // A number of bytes in an alert.
    "}}b behind",
    "stands in for",
];

/// The comment of a line, without its slashes; `None` if there is none.
pub(crate) fn comment_of(line: &str) -> Option<&str> {
    let start = line.trim_start();
    if let Some(text) = start.strip_prefix("//") {
        return Some(text.trim_start_matches(['/', '!']).trim());
    }
    // A comment after code. An address in a string has a colon before its slashes.
    line.find(" // ").map(|at| line[at + 4..].trim())
}

/// Whether the words stand in the text, not as a part of longer words.
fn has_words(text: &str, words: &str) -> bool {
    text.match_indices(words).any(|(at, _)| {
        let letter = |c: char| c.is_alphanumeric() || c == '_';
        !text[..at].ends_with(letter) && !text[at + words.len()..].starts_with(letter)
    })
}

/// The complaints about one comment.
fn complaints(comment: &str) -> Vec<String> {
    let mut text = comment.to_lowercase();
    for right in RIGHT_USES {
        text = text.replace(right, "");
    }
    FORBIDDEN
        .iter()
        .filter(|(words, _)| has_words(&text, words))
        .map(|(words, better)| format!("\"{words}\", better: {better}"))
        .collect()
}

/// The comments of a source, each with its first line. Lines that follow each other are one comment: a sentence may
/// break anywhere.
fn comments(text: &str) -> Vec<(usize, String)> {
    let mut found: Vec<(usize, String)> = Vec::new();
    let mut last = usize::MAX;
    for (number, line) in text.lines().enumerate() {
        let Some(comment) = comment_of(line) else { continue };
        let follows = last != usize::MAX && last + 1 == number && line.trim_start().starts_with("//");
        match found.last_mut().filter(|_| follows) {
            Some((_, whole)) => {
                whole.push(' ');
                whole.push_str(comment);
            }
            None => found.push((number + 1, comment.to_owned())),
        }
        last = number;
    }
    found
}

/// The texts of several words in the code of a source, without its tests.
fn messages(file: &Source) -> Vec<String> {
    struct Texts(Vec<String>);
    impl<'ast> syn::visit::Visit<'ast> for Texts {
        fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
            if item.ident != "tests" {
                syn::visit::visit_item_mod(self, item);
            }
        }
        fn visit_attribute(&mut self, attribute: &'ast syn::Attribute) {
            // Comments of documentation are read with the others; the texts of errors are here.
            if !attribute.path().is_ident("doc") {
                syn::visit::visit_attribute(self, attribute);
                if let syn::Meta::List(list) = &attribute.meta {
                    self.visit_tokens(list.tokens.clone());
                }
            }
        }
        fn visit_macro(&mut self, call: &'ast syn::Macro) {
            self.visit_tokens(call.tokens.clone());
        }
        fn visit_lit_str(&mut self, text: &'ast syn::LitStr) {
            self.0.push(text.value());
        }
    }
    impl Texts {
        fn visit_tokens(&mut self, tokens: proc_macro2::TokenStream) {
            for token in tokens {
                match token {
                    proc_macro2::TokenTree::Group(group) => self.visit_tokens(group.stream()),
                    proc_macro2::TokenTree::Literal(literal) => {
                        if let syn::Lit::Str(text) = syn::Lit::new(literal) {
                            self.0.push(text.value());
                        }
                    }
                    _ => {}
                }
            }
        }
    }
    let mut texts = Texts(Vec::new());
    let syntax = syn::parse_file(&file.text).unwrap_or_else(|error| panic!("{}: {error}", file.path));
    syn::visit::Visit::visit_file(&mut texts, &syntax);
    texts.0.retain(|text| text.contains(' '));
    texts.0
}

#[test]
fn comments_use_plain_english() {
    let mut found = Vec::new();
    // The list above has to name the words.
    for file in files(".rs").iter().filter(|file| !file.path.ends_with("/house/comments.rs")) {
        for (number, comment) in comments(&file.text) {
            found.extend(complaints(&comment).iter().map(|why| format!("{}:{number}: {why}", file.path)));
        }
    }
    assert_none("these comments have to be read twice:", &found);
}

/// Names of the standard library.
const NAMES_OF_OTHERS: [&str; 2] = ["is_none", "is_none_or"];

/// The words of a name: `it_goes_on` and `ItGoesOn` are "it goes on".
fn words_of(name: &str) -> String {
    let mut words = String::new();
    for (at, c) in name.char_indices() {
        if c == '_' || (c.is_uppercase() && at > 0 && !name[..at].ends_with(|before: char| before.is_uppercase())) {
            words.push(' ');
        }
        if c != '_' {
            words.extend(c.to_lowercase());
        }
    }
    words
}

/// The names that a source defines or uses, each once. Names in the calls of macros are left out.
fn names(file: &Source) -> BTreeSet<String> {
    struct Names(BTreeSet<String>);
    impl<'ast> syn::visit::Visit<'ast> for Names {
        fn visit_ident(&mut self, name: &'ast proc_macro2::Ident) {
            self.0.insert(name.to_string());
        }
    }
    let mut names = Names(BTreeSet::new());
    let syntax = syn::parse_file(&file.text).unwrap_or_else(|error| panic!("{}: {error}", file.path));
    syn::visit::Visit::visit_file(&mut names, &syntax);
    names.0
}

#[test]
fn names_use_plain_english() {
    let mut found = Vec::new();
    for file in files(".rs") {
        for name in names(&file).iter().filter(|name| !NAMES_OF_OTHERS.contains(&name.as_str())) {
            found.extend(complaints(&words_of(name)).iter().map(|why| format!("{}: `{name}`: {why}", file.path)));
        }
    }
    assert_none("these names have to be read twice:", &found);
}

#[test]
fn messages_use_plain_english() {
    let mut found = Vec::new();
    for file in files(".rs").iter().filter(|file| !file.is_test() && file.path.starts_with("crates/")) {
        for text in messages(file) {
            found.extend(complaints(&text).iter().map(|why| format!("{}: {why} in {text:?}", file.path)));
        }
    }
    assert_none("these messages have to be read twice:", &found);
}

/// The programs without an ending and the files that other programs read.
fn scripts() -> Vec<Source> {
    let known = ["Makefile", "scripts/", "benches/", "deploy/systemd/"];
    let texts = files_where(&|path| {
        known.iter().any(|name| path.starts_with(name)) && ![".rs", ".py", ".sh"].iter().any(|end| path.ends_with(end))
    });
    assert!(texts.len() > known.len(), "the scripts are gone: {texts:?}");
    texts
}

#[test]
fn documents_use_plain_english() {
    let mut found = Vec::new();
    // docs/style.md has to name the words.
    let pages = files(".md").into_iter().filter(|file| file.path != "docs/style.md");
    for file in pages.chain(files(".py")).chain(files(".sh")).chain(files(".yaml")).chain(scripts()) {
        let mut in_code = false;
        for (number, line) in file.text.lines().enumerate() {
            if line.trim_start().starts_with("```") {
                in_code = !in_code;
            }
            if !in_code {
                found.extend(complaints(line).iter().map(|why| format!("{}:{}: {why}", file.path, number + 1)));
            }
        }
    }
    assert_none("these lines have to be read twice:", &found);
}

#[test]
fn a_word_is_found_and_its_right_use_is_not() {
    assert_eq!(complaints("the bytes behind its end").len(), 1);
    assert_eq!(complaints("a standby that lags behind its primary"), Vec::<String>::new());
    assert_eq!(complaints("what shallow means"), Vec::<String>::new());
    assert_eq!(comment_of("    let x = 1; // a reason"), Some("a reason"));
    assert_eq!(comment_of("    let url = \"http://host\";"), None);
    assert_eq!((words_of("a_run_goes_on"), words_of("GoesOnLater")), ("a run goes on".into(), "goes on later".into()));
    // A sentence breaks anywhere, and a message is in the code of a macro.
    let whole = comments("// it goes\n// on\nlet a = 1; // told\n");
    assert_eq!(whole, [(1, "it goes on".to_owned()), (3, "told".to_owned())]);
    let text = "fn f() { say!(\"nobody is told\"); }\n#[error(\"it goes on\")]\nstruct E;\n";
    let file = Source { path: "crates/a/src/b.rs".to_owned(), text: text.to_owned() };
    assert_eq!(messages(&file), ["nobody is told", "it goes on"]);
}
