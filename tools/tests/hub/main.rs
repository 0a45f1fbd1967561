//! Checkpoints from the hub, by a server inside this test: no test asks the network.

#[path = "../common/mod.rs"]
mod common;
mod server;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use cerebellum_tools::hub::{Error, Found, Hub, Name, Places, Result};
use common::Model;
use server::{MAIN, Server, V1, etag};
use tempfile::TempDir;

/// Variables of the user's that would change what is tested.
const VARIABLES: [&str; 16] = [
    "HF_ENDPOINT",
    "HF_HOME",
    "HF_HUB_CACHE",
    "HUGGINGFACE_HUB_CACHE",
    "XDG_CACHE_HOME",
    "HF_TOKEN",
    "HUGGING_FACE_HUB_TOKEN",
    "HF_TOKEN_PATH",
    "HF_HUB_DISABLE_IMPLICIT_TOKEN",
    "HF_HUB_OFFLINE",
    "TRANSFORMERS_OFFLINE",
    "HF_HUB_DOWNLOAD_TIMEOUT",
    "SSL_CERT_FILE",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "CEREBELLUM_ISA",
];

/// A server with the model `org/tiny`, and an empty cache.
struct Place {
    server: Server,
    directory: TempDir,
    checkpoint: PathBuf,
}

impl Place {
    fn new() -> Self {
        let (server, directory) = (Server::start(), tempfile::tempdir().unwrap());
        let checkpoint = directory.path().join("tiny");
        Model::random(97, 5, 48, 70).write(&checkpoint);
        server.add_directory("org/tiny", &checkpoint);
        Self { server, directory, checkpoint }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn cache(&self) -> PathBuf {
        self.path("home/hub")
    }

    fn blobs(&self) -> PathBuf {
        self.cache().join("models--org--tiny/blobs")
    }

    fn places(&self) -> Places {
        let mut places = Places::with_cache(self.cache());
        places.endpoint = self.server.endpoint();
        places.pause = Duration::from_millis(1);
        places
    }

    fn locate(&self, name: &str) -> Result<Found> {
        locate(self.places(), name)
    }

    fn locate_offline(&self, name: &str) -> Result<Found> {
        let mut places = self.places();
        places.offline = true;
        locate(places, name)
    }

    fn error(&self, name: &str) -> String {
        self.locate(name).unwrap_err().to_string()
    }

    /// The command, with the cache in place of the user's.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cerebellum"));
        for variable in VARIABLES {
            command.env_remove(variable);
        }
        command.env("HF_HOME", self.path("home")).env("HF_ENDPOINT", self.server.endpoint());
        command.args(arguments);
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// The weights' file: path, content and digest.
    fn weights(&self) -> (PathBuf, Vec<u8>, String) {
        let content = fs::read(self.checkpoint.join("model.safetensors")).unwrap();
        let etag = etag("model.safetensors", &content);
        (self.blobs().join(&etag), content, etag)
    }
}

fn locate(places: Places, name: &str) -> Result<Found> {
    Hub::new(places).locate(&Name::of(Path::new(name)).expect("it begins with hf:")?, &())
}

fn ok(output: Output) -> Output {
    assert!(output.status.success(), "{}", stderr(&output));
    output
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn a_model_is_quantized_by_its_name() {
    let place = Place::new();
    for junk in ["README.md", "pytorch_model.bin", "onnx/model.onnx", "consolidated.safetensors"] {
        place.server.add(&format!("org/tiny/{junk}"), "not needed");
    }
    let [local, first, second] =
        ["local.cbl", "first.cbl", "second.cbl"].map(|name| place.path(name));
    ok(place.run(&["quantize", "--no-calibration", text(&place.checkpoint), "-o", text(&local)]));
    assert!(place.server.requests().is_empty(), "a directory asks no hub");

    let output =
        ok(place.run(&["quantize", "--no-calibration", "hf:org/tiny", "-o", text(&first)]));
    assert!(stderr(&output).contains("hf:org/tiny: loaded"), "{}", stderr(&output));
    assert_eq!(fs::read(&first).unwrap(), fs::read(&local).unwrap());
    let asked: Vec<String> = place.server.requests().into_iter().map(|it| it.path).collect();
    assert!(!asked.iter().any(|path| path.contains("README") || path.contains("consolidated")));
    assert!(!asked.iter().any(|path| path.contains(".bin") || path.contains("onnx")), "{asked:?}");

    // Once more: the hub is asked for the commit, and for no file.
    ok(place.run(&["quantize", "--no-calibration", "hf:org/tiny", "-o", text(&second)]));
    assert_eq!(place.server.requests().len(), 1);
    for offline in [&["--offline"][..], &[]] {
        let mut command = place.command(&[
            "quantize",
            "--no-calibration",
            "hf:org/tiny",
            "--force",
            "-o",
            text(&second),
        ]);
        command.args(offline);
        if offline.is_empty() {
            command.env("HF_HUB_OFFLINE", "1");
        }
        let output = ok(command.output().unwrap());
        assert!(!stderr(&output).contains("loaded"), "{}", stderr(&output));
        assert_eq!(fs::read(&second).unwrap(), fs::read(&local).unwrap());
    }
    assert!(place.server.requests().is_empty(), "offline asks no hub");
}

#[test]
fn the_cache_is_laid_out_as_pythons() {
    let place = Place::new();
    let found = place.locate("hf:org/tiny@refs/pr/1").unwrap();
    let folder = place.cache().join("models--org--tiny");
    assert_eq!(found.path, folder.join("snapshots").join(V1));
    assert_eq!(fs::read_to_string(folder.join("refs/refs/pr/1")).unwrap(), V1);
    let (blob, content, _) = place.weights();
    assert_eq!(
        found.received as usize,
        content.len() + fs::read(place.checkpoint.join("config.json")).unwrap().len()
    );
    assert_eq!(fs::read(&blob).unwrap(), content);
    let link = found.path.join("model.safetensors");
    if cfg!(unix) {
        let target = Path::new("../../blobs").join(blob.file_name().unwrap());
        assert_eq!(fs::read_link(&link).unwrap(), target);
    }
    assert_eq!(fs::read(&link).unwrap(), content);
    // Another revision with the same files loads nothing.
    let main = place.locate("hf:org/tiny").unwrap();
    assert_eq!((main.commit.as_str(), main.received), (MAIN, 0));
    assert_eq!(fs::read_to_string(folder.join("refs/main")).unwrap(), MAIN);
    // A commit needs no note of what it is.
    place.locate(&format!("hf:org/tiny@{V1}")).unwrap();
    assert!(!folder.join("refs").join(V1).exists());
    assert!(
        fs::read_dir(place.blobs()).unwrap().all(|entry| entry
            .unwrap()
            .path()
            .extension()
            .is_none())
    );
}

#[test]
fn a_file_in_a_folder_links_to_its_content() {
    let place = Place::new();
    place.server.add("org/tiny/deep/er/x.gguf", "GGUF of a kind");
    let found = place.locate("hf:org/tiny/deep/er/x.gguf@v1").unwrap();
    assert!(found.path.ends_with(format!("snapshots/{V1}/deep/er/x.gguf")), "{:?}", found.path);
    assert_eq!(fs::read(&found.path).unwrap(), b"GGUF of a kind");
    assert_eq!(place.locate_offline("hf:org/tiny/deep/er/x.gguf@v1").unwrap().path, found.path);
}

#[test]
fn every_command_that_reads_checkpoints_takes_names() {
    let place = Place::new();
    let tokens = ["--tokens", "1,2,3", "--json"];
    let logits = |checkpoint: &str| {
        ok(place.run(&[&["logits", "--checkpoint", checkpoint], &tokens[..]].concat())).stdout
    };
    assert_eq!(logits("hf:org/tiny"), logits(text(&place.checkpoint)));
    let [local, remote] = ["local.gguf", "remote.gguf"].map(|name| place.path(name));
    ok(place.run(&["export-gguf", text(&place.checkpoint), "-o", text(&local)]));
    ok(place.run(&["export-gguf", "hf:org/tiny", "-o", text(&remote)]));
    let gguf = fs::read(&local).unwrap();
    assert!(gguf == fs::read(&remote).unwrap());

    place.server.add("org/gguf/tiny.gguf", gguf);
    let [first, second] = ["first.cbl", "second.cbl"].map(|name| place.path(name));
    ok(place.run(&["quantize", "--no-calibration", text(&local), "-o", text(&first)]));
    ok(place.run(&["quantize", "--no-calibration", "hf:org/gguf", "-o", text(&second)]));
    assert!(fs::read(&first).unwrap() == fs::read(&second).unwrap());
    ok(place.run(&[
        "quantize",
        "--no-calibration",
        "hf:org/gguf/tiny.gguf@v1",
        "--force",
        "-o",
        text(&second),
    ]));
    assert!(fs::read(&first).unwrap() == fs::read(&second).unwrap());

    let file = text(&first);
    for arguments in [
        &["quantize", file, "--dry-run", "--tokenizer", "hf:org/none"][..],
        &["export-gguf", file, "-o", "x", "--tokenizer", "hf:org/none"],
        &["eval", "-m", file, "--text", file, "--reference", "hf:org/none"],
        &["eval", "--text", file, "--checkpoint", "hf:org/none"],
        &["eval-task", "intents", "--data", file, "-m", file, "--reference", "hf:org/none"],
    ] {
        let output = place.run(arguments);
        assert_eq!(output.status.code(), Some(1));
        assert!(stderr(&output).contains("has no model org/none"), "{}", stderr(&output));
    }
}

#[test]
fn shards_are_those_that_the_index_names() {
    let place = Place::new();
    let index = "model.safetensors.index.json";
    let (_, content, _) = place.weights();
    place.server.remove("org/tiny/model.safetensors");
    place.server.add("org/tiny/part-1.safetensors", content);
    place.server.add("org/tiny/part-3.safetensors", "not needed");
    let add_index = |shard: &str| {
        let json = serde_json::json!({ "weight_map": { "wte.weight": shard } });
        place.server.add(&format!("org/tiny/{index}"), json.to_string());
    };
    add_index("part-1.safetensors");
    let found = place.locate("hf:org/tiny").unwrap();
    for (file, expected) in
        [(index, true), ("part-1.safetensors", true), ("part-3.safetensors", false)]
    {
        assert_eq!(found.path.join(file).exists(), expected, "{file}");
    }
    // Offline, a shard that is missing is named.
    fs::remove_file(found.path.join("part-1.safetensors")).unwrap();
    let error = place.locate_offline("hf:org/tiny").unwrap_err().to_string();
    assert!(error.contains("part-1.safetensors is missing"), "{error}");

    add_index("part-2.safetensors");
    let error = place.error("hf:org/tiny@v1");
    assert!(error.contains("hf:org/tiny@v1 has no file \"part-2.safetensors\""), "{error}");
    fs::remove_dir_all(place.cache()).unwrap();
    add_index("../../../../escaped.safetensors");
    place.server.add("org/tiny/../../../../escaped.safetensors", "x");
    let error = place.locate("hf:org/tiny").unwrap_err();
    assert!(matches!(error, Error::Index(_)), "{error}");
}

#[test]
fn a_broken_connection_is_taken_up_again() {
    let place = Place::new();
    let (blob, content, _) = place.weights();
    (place.server.faults().breaks, place.server.faults().break_after) = (3, 1000);
    place.locate("hf:org/tiny").unwrap();
    assert_eq!(fs::read(&blob).unwrap(), content);
    let ranges: Vec<_> =
        place.server.requests().into_iter().filter(|it| it.to_store).map(|it| it.range).collect();
    let expected = [None, Some("bytes=1000-"), Some("bytes=2000-"), Some("bytes=3000-")];
    assert_eq!(ranges, expected.map(|range| range.map(str::to_owned)));
}

#[test]
fn a_run_goes_on_where_the_last_one_stopped() {
    let place = Place::new();
    let (blob, content, etag) = place.weights();
    // Once something comes, then nothing.
    (place.server.faults().breaks, place.server.faults().break_after) = (1, 1000);
    place.locate("hf:org/tiny/none.gguf").unwrap_err();
    let partial = place.blobs().join(format!("{etag}.incomplete"));
    fs::create_dir_all(place.blobs()).unwrap();
    fs::write(&partial, &content[..700]).unwrap();
    (place.server.faults().breaks, place.server.faults().break_after) = (100, 0);
    let error = place.locate("hf:org/tiny").unwrap_err();
    assert!(matches!(error, Error::Network { loaded: 700, .. }), "{error}");
    let error = error.to_string();
    assert!(error.contains("700 bytes of it loaded, from where the next run goes on"), "{error}");
    assert!(!blob.exists() && !place.cache().join("models--org--tiny/refs").exists());
    place.server.faults().breaks = 0;
    place.server.requests();
    let found = place.locate("hf:org/tiny").unwrap();
    assert_eq!(found.received as usize, content.len() - 700);
    let ranges: Vec<_> = place.server.requests().into_iter().filter_map(|it| it.range).collect();
    // Of the hub, and of its store.
    assert_eq!(ranges, ["bytes=700-", "bytes=700-"]);
    assert_eq!(fs::read(&blob).unwrap(), content);
    assert!(!partial.exists());
}

#[test]
fn a_store_without_parts_sends_all_again() {
    let place = Place::new();
    let (blob, content, _) = place.weights();
    *place.server.faults() =
        server::Faults { breaks: 2, break_after: 1000, whole_only: true, ..Default::default() };
    place.locate("hf:org/tiny").unwrap();
    assert_eq!(fs::read(&blob).unwrap(), content);
}

#[test]
fn a_wrong_beginning_is_loaded_again() {
    for length in [10, usize::MAX] {
        let place = Place::new();
        let (blob, content, etag) = place.weights();
        fs::create_dir_all(place.blobs()).unwrap();
        let wrong = vec![7; length.min(content.len() + 5)];
        fs::write(place.blobs().join(format!("{etag}.incomplete")), wrong).unwrap();
        place.locate("hf:org/tiny").unwrap();
        assert_eq!(fs::read(&blob).unwrap(), content);
    }
}

#[test]
fn damage_is_found_and_not_kept() {
    let place = Place::new();
    let (blob, _, etag) = place.weights();
    place.server.faults().damaged = true;
    let error = place.error("hf:org/tiny");
    assert!(error.contains("model.safetensors came with the digest"), "{error}");
    assert!(error.contains(&etag) && error.contains("nothing of it was kept"), "{error}");
    assert!(!blob.exists() && !place.blobs().join(format!("{etag}.incomplete")).exists());
}

#[test]
fn a_small_file_is_checked_by_gits_digest() {
    let place = Place::new();
    let wrong = "ce013625030ba8dba906f756967f9e9ca394464a";
    place.server.faults().etag = Some(wrong);
    let error = place.error("hf:org/tiny");
    assert!(error.contains("config.json came with the digest") && error.contains(wrong), "{error}");
}

#[test]
fn a_busy_hub_is_asked_again() {
    let place = Place::new();
    place.server.faults().busy = 3;
    place.locate("hf:org/tiny").unwrap();
    fs::remove_dir_all(place.cache()).unwrap();
    place.server.faults().busy = 100;
    let error = place.error("hf:org/tiny");
    assert!(error.contains("answers 503 (busy); try again later"), "{error}");
}

#[test]
fn refusals_say_what_to_do() {
    let place = Place::new();
    let hub = place.server.endpoint();
    let with_token = |name| {
        let mut places = place.places();
        places.set_token("hf_secret");
        locate(places, name).unwrap_err().to_string()
    };
    let error = place.error("hf:org/other");
    assert!(error.contains(&format!("{hub} has no model org/other, or it is private")), "{error}");
    assert!(error.contains("set HF_TOKEN"), "{error}");
    assert!(with_token("hf:org/other").contains("whether your token may read it"));
    let error = place.error("hf:org/tiny@v9");
    assert!(error.contains("org/tiny has no revision \"v9\""), "{error}");
    assert!(error.contains(&format!("{hub}/org/tiny/tree/main")), "{error}");

    // A gated model shows its files, and gives none of them.
    place.server.faults().refuse_files = Some((401, "GatedRepo", "Access is restricted"));
    let error = place.error("hf:org/tiny");
    assert!(
        error.contains(&format!("org/tiny is gated: accept its licence at {hub}/org/tiny")),
        "{error}"
    );
    assert!(error.contains("set HF_TOKEN"), "{error}");
    place.server.faults().refuse_files = Some((403, "GatedRepo", "Access is restricted"));
    assert!(with_token("hf:org/tiny").contains("of the account that accepted it"));

    let invalid = "Invalid credentials in Authorization header";
    place.server.faults().refuse = Some((401, "", invalid));
    let error = with_token("hf:org/tiny");
    assert!(
        error.contains("refuses the token from the program") && error.contains(invalid),
        "{error}"
    );
    assert!(!error.contains("hf_secret"), "{error}");
    // What the hub says to who has no token, of what it does not show.
    assert!(place.error("hf:org/tiny").contains("or it is private"));
    let error = place.error("hf:tiny");
    assert!(error.contains("write hf:ORG/NAME"), "{error}");
}

#[test]
fn what_cannot_be_chosen_is_listed() {
    let place = Place::new();
    for file in ["README.md", "a.gguf", "b.gguf"] {
        place.server.add(&format!("org/gguf/{file}"), "x");
    }
    let error = place.error("hf:org/gguf");
    assert!(
        error.contains("several GGUF files")
            && error.contains("hf:org/gguf/a.gguf, hf:org/gguf/b.gguf")
    );
    assert!(place.error("hf:org/gguf/c.gguf").contains("it has a.gguf, b.gguf"));
    place.server.add("org/onnx/model.onnx", "x");
    let error = place.error("hf:org/onnx");
    assert!(
        error.contains("neither safetensors") && error.contains("its files are model.onnx"),
        "{error}"
    );
    // An adapter is named for what it is by the reader of checkpoints.
    place
        .server
        .add("org/adapter/adapter_config.json", r#"{"base_model_name_or_path": "org/base"}"#);
    place.server.add("org/adapter/adapter_model.safetensors", "x");
    let output = place.run(&[
        "quantize",
        "--no-calibration",
        "hf:org/adapter",
        "-o",
        text(&place.path("x.cbl")),
    ]);
    assert!(stderr(&output).contains("org/base"), "{}", stderr(&output));
}

#[test]
fn without_a_network_the_cache_is_pointed_at() {
    let place = Place::new();
    // A port at which nobody listens.
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut places = place.places();
    places.endpoint = format!("http://{closed}");
    let error = locate(places.clone(), "hf:org/tiny").unwrap_err().to_string();
    assert!(error.contains(&format!("cannot read http://{closed}/api/models/org/tiny")), "{error}");
    assert!(error.contains("check the connection") && error.contains("HTTPS_PROXY"), "{error}");
    place.locate("hf:org/tiny").unwrap();
    let error = locate(places, "hf:org/tiny").unwrap_err().to_string();
    assert!(error.contains("--offline reads it from there"), "{error}");

    for name in ["hf:org/tiny@v1", "hf:org/other", "hf:org/tiny/x.gguf"] {
        let error = place.locate_offline(name).unwrap_err().to_string();
        let expected = format!("{name} is not in the cache {}", place.cache().display());
        assert!(error.contains(&expected) && error.contains("once without --offline"), "{error}");
    }
    // A stream that stalls is no network, either.
    fs::remove_dir_all(place.cache()).unwrap();
    let mut places = place.places();
    places.patience = Duration::from_millis(100);
    place.server.faults().slow = Some(Duration::from_secs(2));
    let error = locate(places, "hf:org/tiny").unwrap_err();
    assert!(matches!(error, Error::Network { .. }), "{error}");
}

#[test]
fn the_token_is_looked_for_where_python_looks() {
    let place = Place::new();
    let home = place.path("home");
    fs::create_dir_all(&home).unwrap();
    fs::write(home.join("token"), "hf_home\n").unwrap();
    fs::write(place.path("elsewhere"), "hf_elsewhere").unwrap();
    let elsewhere = place.path("elsewhere");
    let tokens = |variables: &[(&str, &str)]| {
        let mut command =
            place.command(&["logits", "--checkpoint", "hf:org/tiny", "--tokens", "1"]);
        command.envs(variables.iter().copied());
        ok(command.output().unwrap());
        fs::remove_dir_all(place.cache()).unwrap();
        let (store, hub): (Vec<_>, Vec<_>) =
            place.server.requests().into_iter().partition(|request| request.to_store);
        assert!(store.len() == 1 && store[0].token.is_none(), "the token is for the hub alone");
        assert!(hub.len() > 3 && hub.iter().all(|request| request.token == hub[0].token));
        hub[0].token.clone()
    };
    let bearer = |token: &str| Some(format!("Bearer {token}"));
    assert_eq!(tokens(&[]), bearer("hf_home"));
    let path = ("HF_TOKEN_PATH", text(&elsewhere));
    assert_eq!(tokens(&[path]), bearer("hf_elsewhere"));
    assert_eq!(tokens(&[path, ("HF_TOKEN", " hf_set ")]), bearer("hf_set"));
    assert_eq!(tokens(&[path, ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")]), None);
}

#[test]
fn the_cache_is_where_python_has_it() {
    let place = Place::new();
    let [cache, xdg] = ["cache", "xdg"].map(|name| place.path(name));
    for (variable, value, expected) in [
        ("HF_HUB_CACHE", &cache, cache.clone()),
        ("HUGGINGFACE_HUB_CACHE", &cache, cache.clone()),
        ("HF_HOME", &cache, cache.join("hub")),
        ("XDG_CACHE_HOME", &xdg, xdg.join("huggingface/hub")),
        ("HOME", &xdg, xdg.join(".cache/huggingface/hub")),
    ] {
        let mut command =
            place.command(&["logits", "--checkpoint", "hf:org/tiny", "--tokens", "1"]);
        command.env_remove("HF_HOME").env(variable, value);
        ok(command.output().unwrap());
        assert!(expected.join("models--org--tiny/refs/main").exists(), "{variable}");
        fs::remove_dir_all(value).unwrap();
    }
}

#[test]
fn answers_of_no_hub_are_refused() {
    let refused = |fault: fn(&mut server::Faults), expected: &str| {
        let place = Place::new();
        fault(&mut place.server.faults());
        let error = place.locate("hf:org/tiny").unwrap_err();
        assert!(matches!(error, Error::Answer { .. }), "{error}");
        assert!(error.to_string().contains(expected), "{error}");
        assert!(!place.cache().join("models--org--tiny/snapshots").exists());
    };
    refused(|faults| faults.etag = Some("../../escaped"), "its digest (ETag) is none");
    refused(|faults| faults.etag = Some(""), "its digest (ETag) is none");
    refused(|faults| faults.commit = Some("../../x"), "is no commit");
    refused(|faults| faults.circle = true, "leads on and on");
    let place = Place::new();
    *place.server.faults() =
        server::Faults { breaks: 1, break_after: 9, wrong_part: true, ..Default::default() };
    let error = place.error("hf:org/tiny");
    assert!(error.contains("asked for bytes from 9 on and sends \"bytes 10-"), "{error}");
}

#[test]
fn files_with_names_that_lead_elsewhere_are_refused() {
    let place = Place::new();
    place.server.add("org/tiny/templates/../../x.txt", "x");
    place.locate("hf:org/tiny").unwrap();
    assert!(!place.directory.path().join("x.txt").exists());
    assert!(matches!(place.locate("hf:org/tiny/../x.gguf"), Err(Error::Name { .. })));
}

#[cfg(unix)]
#[test]
fn a_full_disk_is_named_and_what_came_stays() {
    let place = Place::new();
    let (_, content, etag) = place.weights();
    let program = env!("CARGO_BIN_EXE_cerebellum");
    let mut command = place.command(&[]);
    // The limit, in blocks of 512 bytes, is as good as a disk that is full.
    let limited =
        format!("ulimit -f 40; exec {program} logits --checkpoint hf:org/tiny --tokens 1");
    let variables: Vec<_> =
        command.get_envs().map(|(k, v)| (k.to_owned(), v.map(ToOwned::to_owned))).collect();
    command = Command::new("sh");
    command.args(["-c", &limited]);
    for (variable, value) in variables {
        match value {
            Some(value) => command.env(variable, value),
            None => command.env_remove(variable),
        };
    }
    let output = command.output().unwrap();
    let partial = place.blobs().join(format!("{etag}.incomplete"));
    let error = stderr(&output);
    assert!(error.contains(&format!("cannot write {}", partial.display())), "{error}");
    assert!(error.contains("make room, or set HF_HOME"), "{error}");
    let kept = fs::read(&partial).unwrap();
    assert!(kept == content[..kept.len()] && kept.len() < content.len());
    let found = place.locate("hf:org/tiny").unwrap();
    assert_eq!(found.received as usize, content.len() - kept.len());
}

#[test]
fn two_processes_load_a_file_once() {
    let place = Place::new();
    place.server.faults().slow = Some(Duration::from_millis(300));
    let start = || {
        let mut command =
            place.command(&["logits", "--checkpoint", "hf:org/tiny", "--tokens", "1"]);
        command.stdout(std::process::Stdio::null()).spawn().unwrap()
    };
    let processes = [start(), start(), start()];
    for mut process in processes {
        assert!(process.wait().unwrap().success());
    }
    let requests = place.server.requests();
    assert_eq!(requests.iter().filter(|it| it.to_store && it.method == "GET").count(), 1);
}
