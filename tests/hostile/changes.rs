//! A file that changes while a model is open, as when somebody copies a new one over it. Replaced by
//! renaming, removed or locked, it stays what it was. Changed in place, a mapped one is refused before the
//! next evaluation, and one that was read stays what it was.

use std::fs::{self, File, OpenOptions, Permissions};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, SystemTime};

use cerebellum::batch::Append;
use cerebellum::score::Continuations;
use cerebellum::{Access, Error, Model, Pooling, Session, SessionOptions};

use crate::base::{tiny, tiny_btlm};

/// What happens to the file at a path.
type Change = fn(&Path);

const HARMLESS: [(&str, Change); 6] = [
    ("replaced by the same", |path| replace(path, tiny())),
    ("replaced by another model", |path| replace(path, tiny_btlm())),
    ("replaced by nothing", |path| replace(path, b"")),
    ("removed", |path| fs::remove_file(path).unwrap()),
    ("moved away", |path| fs::rename(path, path.with_extension("old")).unwrap()),
    ("without permissions", |path| {
        fs::set_permissions(path, Permissions::from_mode(0o000)).unwrap();
    }),
];

const IN_PLACE: [(&str, Change); 7] = [
    ("emptied", |path| set_length(path, 0)),
    ("cut off", |path| set_length(path, tiny().len() as u64 - 1)),
    ("extended", |path| set_length(path, tiny().len() as u64 + 1)),
    ("a byte of the header", |path| write_at(path, 100, b"x")),
    ("a byte of the tensors", |path| write_at(path, tiny().len() as u64 - 300, b"x")),
    ("written again", |path| fs::write(path, tiny()).unwrap()),
    ("overwritten by another model", |path| fs::write(path, tiny_btlm()).unwrap()),
];

fn replace(path: &Path, bytes: &[u8]) {
    let new = path.with_extension("new");
    fs::write(&new, bytes).unwrap();
    fs::rename(new, path).unwrap();
}

fn set_length(path: &Path, length: u64) {
    OpenOptions::new().write(true).open(path).unwrap().set_len(length).unwrap();
}

fn write_at(path: &Path, at: u64, bytes: &[u8]) {
    OpenOptions::new().write(true).open(path).unwrap().write_all_at(bytes, at).unwrap();
}

fn bits(session: &mut Session) -> Result<Vec<u32>, Error> {
    session.reset();
    let logits = session.evaluate(&[3, 0, 23])?;
    Ok(logits.iter().map(|logit| logit.to_bits()).collect())
}

/// Writes the model to a file old enough for a change to show in a file system that counts time in seconds.
fn write_old(path: &Path) {
    fs::write(path, tiny()).unwrap();
    let before = SystemTime::now() - Duration::from_secs(60);
    File::options().write(true).open(path).unwrap().set_modified(before).unwrap();
}

/// Evaluates, changes the file, evaluates again; says whether that gives the same.
fn after(change: Change, access: Access) -> Result<bool, Error> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("model.cbl");
    write_old(&path);
    let model = Model::open(&path, access).unwrap();
    let mut session = model.session(&SessionOptions::default()).unwrap();
    let want = bits(&mut session).unwrap();
    change(&path);
    bits(&mut session).map(|bits| bits == want)
}

#[test]
fn a_replaced_file_stays_what_it_was() {
    for (case, change) in HARMLESS {
        for access in [Access::Map, Access::Read] {
            assert!(after(change, access).unwrap(), "{case} ({access:?}): other logits");
        }
    }
}

/// What reads the file without evaluating looks first, too; a tokenizer that is open needs it no more.
#[test]
fn whatever_reads_a_file_that_was_changed_in_place_refuses_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("model.cbl");
    for (case, change) in IN_PLACE {
        write_old(&path);
        let model = Model::open(&path, Access::Map).unwrap();
        let tokenizer = model.tokenizer().unwrap();
        let token = tokenizer.table().token_bytes(3).unwrap().to_vec();
        let mut session = model.session(&SessionOptions::default()).unwrap();
        let mut saved = Vec::new();
        session.evaluate(&[3, 0]).unwrap();
        session.save(&mut saved).unwrap();
        change(&path);
        let refuses = |reader: &str, result: Result<(), Error>| {
            assert!(matches!(result, Err(Error::FileChanged { .. })), "{case}: {reader}");
        };
        refuses("tokenizer", model.tokenizer().map(drop));
        refuses("verify", model.verify().map(drop));
        refuses("save", session.save(&mut Vec::new()));
        refuses("restore", session.restore_bytes(&saved));
        let mut embedding = vec![0.0; model.config().n_embd];
        refuses("embed", session.embed(&[3], Pooling::Mean, &mut embedding));
        let continuations = Continuations::new(&[[3]]).unwrap();
        refuses("score", session.score(&[3], &continuations).map(drop));
        let mut batch = model.batch(&SessionOptions::default(), 1).unwrap();
        refuses("batch", batch.evaluate(&[Append { sequence: 0, tokens: &[3] }]));
        assert_eq!(tokenizer.table().token_bytes(3).unwrap(), token, "{case}");
        tokenizer.encode("a", Default::default()).unwrap();
    }
}

#[test]
fn a_file_changed_in_place_is_refused_if_it_is_mapped() {
    for (case, change) in IN_PLACE {
        let mapped = after(change, Access::Map);
        assert!(matches!(mapped, Err(Error::FileChanged { .. })), "{case}: {mapped:?}");
        assert!(after(change, Access::Read).unwrap(), "{case}: read, and other logits");
    }
}
