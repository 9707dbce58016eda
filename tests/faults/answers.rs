//! Wrong answers: cut short, with a flipped bit, or with a wrong status. Holdfast asks again or refuses them, and never
//! delivers them.

use std::collections::BTreeMap;
use std::path::Path;

use holdfast_testkit::proxy::{Effect, Fault, When};
use holdfast_testkit::random::Random;

use super::kit::{add_to_wal_table, http_faults, small};
use crate::stage::attack::{back_up, load, segment_path, segments, wal_object};
use crate::stage::{self, Seal, Stage};

/// The files in a restored directory that came from the backup, with their content.
fn content(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let own = ["postgresql.auto.conf", "backup_manifest", "recovery.signal"];
    let names = stage::attack::files_below(root).into_keys().filter(|name| !own.contains(&name.as_str()));
    names.map(|name| (name.clone(), std::fs::read(root.join(&name)).expect("read a restored file"))).collect()
}

/// The codes of damage: corrupt, truncated, swapped. Also those of a configuration or an answer that makes no sense.
fn is_damage(code: i32) -> bool {
    (40..=43).contains(&code) || [11, 12, 14, 17, 24, 25, 60, 61].contains(&code)
}

async fn damaged_answers(major: u16, seal: Seal) {
    let Some(stage) = Stage::start(major, small(seal)).await else { return };
    let mut random = Random::of_this_run();
    let proxy = http_faults(&stage);
    load(&stage.cluster).await;
    back_up(&stage);
    stage.archive_now().await;
    let clean = stage.target("clean");
    stage.ok(&["restore", "--pgdata", &clean.display().to_string()]);
    let expected = content(&clean);

    // Wrong once, or now and then: another attempt succeeds, or there is an error. The content is never different.
    let mut restored = 0;
    for round in 0..7 {
        let at = random.below(200_000);
        let (effect, when, path) = match round {
            0 => (Effect::TruncatedBody(at), When::First(2), "/packs/"),
            1 => (Effect::TruncatedBody(random.below(400)), When::EveryNth(3), ""),
            2 => (Effect::FlippedBit(at), When::Nth(1), "/packs/"),
            3 => (Effect::FlippedBit(random.below(5_000_000)), When::Nth(2), "/packs/"),
            4 => (Effect::FlippedBit(random.below(3000)), When::Nth(1), "/manifest"),
            5 => (Effect::FlippedBit(random.below(300)), When::Nth(1 + random.below(8)), ""),
            _ => (Effect::FlippedBit(at), When::Always, "/packs/"),
        };
        let what = format!("round {round}: {effect:?} {when:?} {path:?}");
        let truncated = matches!(effect, Effect::TruncatedBody(_));
        proxy.clear();
        proxy.inject(Fault::new(effect, when).method("GET").path_contains(path));
        let target = stage.target(&format!("damaged-{round}"));
        let output = stage.run(&["restore", "--pgdata", &target.display().to_string()]);
        let (code, text) = (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&output.stderr));
        eprintln!("{what}: {code}");
        if code == 0 {
            restored += 1;
            let differing = differing(&expected, &content(&target));
            assert!(differing.is_empty(), "{what}: wrong content in {differing:?}");
        } else {
            assert!(is_damage(code), "{what}: {code}\n{text}");
            assert!(!target.join("global/pg_control").exists(), "{what}: a failed restore has a control file");
            assert!(!truncated, "{what}: Holdfast asks again after an interrupted answer: {text}");
        }
        assert!(round < 6 || code != 0, "{what}: data that is always damaged cannot be restored");
    }
    assert!(restored >= 2, "only {restored} restores succeeded");

    // WAL: the right bytes, or a status that stops recovery, and never "absent".
    add_to_wal_table(&stage, "timeout = \"2s\"\nprefetch = 0");
    proxy.clear();
    let segment = segments(stage.cluster.data(), "done").last().expect("an archived segment").clone();
    let original = std::fs::read(segment_path(stage.cluster.data(), &segment)).expect("read the segment");
    let size = wal_object(&stage, &segment).expect("its object").1.size_bytes;
    let folder = stage.scratch.folder("fetched").expect("make a folder");
    let mut fetched = 0;
    for round in 0..10 {
        let at = random.below(size);
        let (effect, when) = match round {
            0 => (Effect::TruncatedBody(at), When::First(2)),
            1 => (Effect::TruncatedBody(at), When::Always),
            2 => (Effect::FlippedBit(at), When::First(1)),
            3 => (Effect::Status(404, "NoSuchBucket"), When::Always),
            4 => (Effect::Status(403, "AccessDenied"), When::Always),
            _ => (Effect::FlippedBit(random.below(size)), When::Always),
        };
        let what = format!("round {round}: {effect:?} {when:?}");
        proxy.clear();
        proxy.inject(Fault::new(effect, when).method("GET").path_contains("/wal/"));
        let destination = folder.join(format!("{segment}-{round}"));
        let output = stage.run(&["wal", "get", &segment, &destination.display().to_string()]);
        let (code, text) = (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&output.stderr));
        eprintln!("{what}: {code}");
        if code == 0 {
            fetched += 1;
            let bytes = std::fs::read(&destination).expect("read what was fetched");
            assert!(bytes == original, "{what}: wrong bytes were delivered");
        } else {
            assert!(code > 125 && code != 143, "{what}: {code} would end recovery early: {text}");
            assert!(!destination.exists(), "{what}: a failed fetch leaves a file");
        }
        let mended = round == 0 || round == 2;
        assert!(code == 0 || !mended, "{what}: Holdfast asks again after a fault on the way: {text}");
        assert!(code != 0 || mended, "{what}: must fail");
    }
    assert!(fetched >= 1);
}

fn differing(expected: &BTreeMap<String, Vec<u8>>, found: &BTreeMap<String, Vec<u8>>) -> Vec<String> {
    let names = expected.keys().chain(found.keys());
    names.filter(|name| expected.get(*name) != found.get(*name)).cloned().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_answers_are_never_delivered() {
    damaged_answers(18, Seal::None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_answers_are_never_delivered_encrypted() {
    damaged_answers(14, Seal::KeyFile).await;
}
