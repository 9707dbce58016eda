//! `manifest`: checks manifests without a Kubernetes cluster.
//!
//! The files that are named are read completely; nothing else is read or written. Errors in a manifest are results, not
//! failures: they are listed, and the exit status reports them.

use crate::args::{ManifestCommand, Output};
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::output::bars::above_bar;
use crate::output::stdout;
use holdfast_contract::report::manifest::{
    CheckedDocument, CheckedFile, DocumentFinding, DocumentVerdict, FindingLevel, ManifestReport,
};
use holdfast_kube_api::crds;
use holdfast_kube_api::manifest::{self, Checked, Level, Located, ReadError, Verdict};
use holdfast_kube_api::validate::Finding;
use std::io::Read;
use std::path::{Path, PathBuf};

/// A larger file was named by mistake.
const LARGEST_FILE_BYTES: u64 = 64 << 20;

pub(super) fn run(command: &ManifestCommand, output: Output) -> Result<ExitCode, Failure> {
    match command {
        ManifestCommand::Check { files, fix } => check(files, *fix, output),
        ManifestCommand::Crds => print_crds(output),
    }
}

/// One file and its findings.
struct File {
    name: String,
    result: Result<Vec<Checked>, ReadError>,
}

fn check(names: &[PathBuf], fix: bool, output: Output) -> Result<ExitCode, Failure> {
    let mut files = Vec::new();
    for name in names {
        let text = read(name)?;
        let name = if name == Path::new("-") { "standard input".to_owned() } else { name.display().to_string() };
        files.push(File { name, result: manifest::check(&text) });
    }
    let count = |level: Level| files.iter().map(|file| count_of(file, level)).sum::<usize>();
    let (errors, warnings) = (count(Level::Error), count(Level::Warning));
    let put_right = if fix { Some(put_right(&files)?) } else { None };
    match (output, put_right) {
        (Output::Json, fixed) => {
            let files = files.into_iter().map(reported_file).collect();
            stdout::json(&ManifestReport { files, errors, warnings, fixed })?;
        }
        (Output::Text, None) => stdout::text(&as_text(&files, errors, warnings))?,
        (Output::Text, Some(put_right)) => {
            // If stderr cannot be written, only the exit status is left.
            let _ = above_bar(as_text(&files, errors, warnings).as_bytes());
            stdout::text(&put_right)?;
        }
    }
    Ok(if errors > 0 { ExitCode::ProblemsFound } else { ExitCode::Ok })
}

fn read(name: &Path) -> Result<String, Failure> {
    let mut bytes = Vec::new();
    let read = if name == Path::new("-") {
        std::io::stdin().lock().take(LARGEST_FILE_BYTES).read_to_end(&mut bytes)
    } else {
        std::fs::File::open(name).and_then(|file| file.take(LARGEST_FILE_BYTES).read_to_end(&mut bytes))
    };
    let failed = |why: &(dyn std::error::Error + 'static)| {
        Failure::new(ExitCode::UnreadableFile, format!("cannot read the manifest {}", name.display()))
            .caused_by(Some(why))
            .hint("name a YAML or JSON file that you may read, or - for standard input")
    };
    read.map_err(|error| failed(&error))?;
    String::from_utf8(bytes).map_err(|error| failed(&error))
}

fn count_of(file: &File, level: Level) -> usize {
    match &file.result {
        Ok(documents) => {
            documents.iter().flat_map(|document| &document.findings).filter(|located| located.level == level).count()
        }
        Err(_) => usize::from(level == Level::Error),
    }
}

/// The documents as validated, one after the other.
fn put_right(files: &[File]) -> Result<String, Failure> {
    let mut text = String::new();
    for document in files.iter().filter_map(|file| file.result.as_ref().ok()).flatten() {
        if !text.is_empty() {
            text.push_str("---\n");
        }
        let written = manifest::write(&document.fixed)
            .map_err(|error| Failure::internal("a manifest cannot be written").caused_by(Some(&error)))?;
        text.push_str(&written);
    }
    Ok(text)
}

fn reported_file(file: File) -> CheckedFile {
    let File { name, result } = file;
    match result {
        Ok(documents) => {
            let documents = documents.into_iter().map(reported_document).collect();
            CheckedFile { file: name, documents, error: None }
        }
        Err(error) => CheckedFile { file: name, documents: Vec::new(), error: Some(error.to_string()) },
    }
}

fn reported_document(document: Checked) -> CheckedDocument {
    let Checked { line, api_version, kind, name, verdict, findings, fixed: _ } = document;
    let verdict = match verdict {
        Verdict::Checked => DocumentVerdict::Checked,
        Verdict::NotOurs => DocumentVerdict::NotOurs,
        Verdict::Fragment => DocumentVerdict::Fragment,
    };
    let findings = findings.into_iter().map(reported_finding).collect();
    CheckedDocument { line, api_version, kind, name, verdict, findings }
}

fn reported_finding(located: Located) -> DocumentFinding {
    let Located { line, level, finding } = located;
    let level = match level {
        Level::Warning => FindingLevel::Warning,
        Level::Error => FindingLevel::Error,
    };
    let Finding { path, reason, message, hint } = finding;
    DocumentFinding { line, level, path, reason: reason.name().to_owned(), message, hint }
}

fn as_text(files: &[File], errors: usize, warnings: usize) -> String {
    let mut lines = Vec::new();
    for file in files {
        let documents = match &file.result {
            Ok(documents) => documents,
            Err(error) => {
                lines.push(format!("{}: error: not YAML: {error}", file.name));
                continue;
            }
        };
        if documents.is_empty() {
            lines.push(format!("{}: it has no content", file.name));
        }
        for document in documents {
            lines.push(headline(file, document));
            for located in &document.findings {
                let level = if located.level == Level::Error { "error" } else { "warning" };
                let finding = &located.finding;
                lines.push(format!("{}:{}: {level}: {}: {}", file.name, located.line, finding.path, finding.message));
                if !finding.hint.is_empty() {
                    lines.push(format!("  hint: {}", finding.hint));
                }
            }
        }
    }
    let counted = |count: usize, what: &str| match count {
        0 => format!("no {what}s"),
        1 => format!("1 {what}"),
        more => format!("{more} {what}s"),
    };
    lines.push(format!("{}, {}", counted(errors, "error"), counted(warnings, "warning")));
    lines.push(String::new());
    lines.join("\n")
}

fn headline(file: &File, document: &Checked) -> String {
    let kind = document.kind.as_deref().unwrap_or_default();
    let name = document.name.as_deref().map_or_else(String::new, |name| format!(" {name}"));
    let words = match document.verdict {
        Verdict::Checked if document.findings.is_empty() => format!("{kind}{name}: in order"),
        Verdict::Checked => format!("{kind}{name}:"),
        Verdict::NotOurs => {
            let group = document.api_version.as_deref().unwrap_or_default();
            format!("{kind}{name} of {group}: Holdfast does not check this kind")
        }
        Verdict::Fragment => "a part of a manifest, without `apiVersion` or `kind`: not checked".to_owned(),
    };
    format!("{}:{}: {words}", file.name, document.line)
}

fn print_crds(output: Output) -> Result<ExitCode, Failure> {
    match output {
        Output::Json => stdout::json(&crds::all().iter().map(|definition| &definition.value).collect::<Vec<_>>())?,
        Output::Text => {
            let mut text = String::new();
            for definition in crds::all() {
                let written = crds::yaml(definition)
                    .map_err(|error| Failure::internal("a CRD cannot be written").caused_by(Some(&error)))?;
                text.push_str("---\n");
                text.push_str(&written);
            }
            stdout::text(&text)?;
        }
    }
    Ok(ExitCode::Ok)
}
