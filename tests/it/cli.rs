//! The binary as people and scripts use it: real processes, each in a folder of
//! its own, with nothing of the surrounding environment. It knows the program by
//! its arguments, output and exit codes alone.

mod audit;
mod checkpoint;
mod closed;
mod commands;
mod encryption;
mod export;
mod invalidate;
mod manual;
mod metering;
mod reload;
mod serving;
mod session;
mod stand_in;
mod tls;
mod tour;
mod warm;
mod watch;

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::SocketAddr,
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
    thread,
    time::Duration,
};

use serde_json::Value;
use tempfile::TempDir;

/// A port where nobody listens, and nobody else can while this lives.
struct Nobody(socket2::Socket);

impl Nobody {
    fn new() -> Self {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
        let socket = socket.unwrap();
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        socket.bind(&any.into()).unwrap();
        Self(socket)
    }

    fn address(&self) -> SocketAddr {
        self.0.local_addr().unwrap().as_socket().unwrap()
    }
}

/// A folder to run the binary in.
pub struct Folder {
    folder: TempDir,
    /// What the binary finds in its environment.
    environment: Vec<(String, String)>,
    /// Bytes that a file may grow to, in units of 1 KiB.
    file_kib: Option<u32>,
}

impl Folder {
    pub fn new() -> Self {
        Self {
            folder: TempDir::new().unwrap(),
            environment: Vec::new(),
            file_kib: None,
        }
    }

    /// Lets the binary find this in its environment.
    pub fn env(&mut self, name: &str, value: &str) {
        self.environment.push((name.into(), value.into()));
    }

    /// Lets no file of the binary grow beyond so many KiB: the disk is full then.
    pub fn limit_files(&mut self, kib: u32) {
        self.file_kib = Some(kib);
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        fs::write(self.path(name), content).unwrap();
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let binary = env!("CARGO_BIN_EXE_riptide-persistence");
        let mut command = match self.file_kib {
            None => Command::new(binary),
            Some(kib) => {
                let limited = format!("trap '' XFSZ; ulimit -f {kib}; exec \"$0\" \"$@\"");
                let mut command = Command::new("bash");
                command.args(["-c", &limited, binary]);
                command
            }
        };
        command
            .args(arguments)
            .current_dir(self.folder.path())
            .env_clear()
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null());
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Ran {
        Ran::from(self.command(arguments).output().unwrap())
    }

    /// Starts a server on free ports and waits until it serves.
    pub fn serve(&self, more: &[&str]) -> Serving<'_> {
        let serving = self.start(more);
        for _ in 0..200 {
            if serving.run(&["health"]).code == 0 {
                return serving;
            }
            thread::sleep(Duration::from_millis(50));
        }
        panic!(
            "it does not serve: {}",
            fs::read_to_string(self.path("stderr")).unwrap()
        );
    }

    /// Starts a server on free ports.
    fn start(&self, more: &[&str]) -> Serving<'_> {
        let free = [
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--admin-listen",
            "127.0.0.1:0",
        ];
        let mut command = self.command(&[&free, more].concat());
        command
            .stdout(Stdio::piped())
            .stderr(fs::File::create(self.path("stderr")).unwrap());
        let mut child = command.spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap()).lines();
        let (mut told, mut address) = (Vec::new(), None);
        for line in stdout.by_ref().map_while(Result::ok) {
            address =
                address.or_else(|| line.split_once(" listens on ").map(|(_, at)| at.to_owned()));
            told.push(line);
            if told.last().is_some_and(|line| line.contains("Ctrl-C")) {
                break;
            }
        }
        let Some(address) = address else {
            let status = child.wait();
            let stderr = fs::read_to_string(self.path("stderr")).unwrap();
            panic!("it did not start ({status:?}): {stderr}");
        };
        Serving {
            folder: self,
            child,
            address: format!("http://{address}"),
            told: told.join("\n"),
        }
    }
}

/// A running server; killed when it is dropped.
pub struct Serving<'a> {
    folder: &'a Folder,
    child: Child,
    /// Where it listens, as a URL.
    pub address: String,
    /// What it printed when it started.
    told: String,
}

impl Serving<'_> {
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.folder.command(arguments);
        command.env("RIPTIDE_ADDRESS", &self.address);
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Ran {
        Ran::from(self.command(arguments).output().unwrap())
    }

    /// Runs a command that must succeed, with JSON as its output.
    fn json(&self, arguments: &[&str]) -> Value {
        self.run(&[arguments, &["--output", "json"]].concat())
            .ok()
            .json()
    }

    /// Runs a command with this standard input.
    fn pipe(&self, arguments: &[&str], input: &[u8]) -> Ran {
        let mut command = self.command(arguments);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(input).unwrap();
        Ran::from(child.wait_with_output().unwrap())
    }

    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill")
            .args(["-s", name, &self.child.id().to_string()])
            .status();
        assert!(sent.unwrap().success());
    }

    /// The exit code, once it has ended.
    pub fn wait(&mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }

    /// What it printed when it started.
    pub fn told(&self) -> &str {
        &self.told
    }

    /// What it wrote to standard error so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path("stderr")).unwrap()
    }
}

impl Drop for Serving<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a command did.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    stdout: Vec<u8>,
    stderr: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap(),
            stdout: output.stdout,
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

impl Ran {
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.stdout).unwrap()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    #[track_caller]
    pub fn ok(self) -> Self {
        assert_eq!(self.code, 0, "{self:?}");
        self
    }

    /// It failed with this code and says so in one line, and nothing else
    /// where a result would be.
    #[track_caller]
    pub fn refused(self, code: i32, says: &str) -> Self {
        assert_eq!(self.code, code, "{self:?}");
        assert!(self.stderr.starts_with("error: "), "{self:?}");
        assert!(
            self.stderr.contains(says),
            "{says:?} is not in {}",
            self.stderr
        );
        assert!(self.stdout.is_empty(), "{self:?}");
        self
    }
}
