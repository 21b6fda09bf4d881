//! Real redis-server processes on loopback. It does not know what they are used for, and nothing of our service.

use std::{
    collections::BTreeMap,
    fs,
    io::{Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        LazyLock, Mutex, PoisonError,
        atomic::{AtomicU16, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

/// How a server is started.
#[derive(Clone, Debug, Default)]
pub struct Options {
    arguments: Vec<String>,
    password: Option<String>,
}

impl Options {
    /// Nothing is written to disk, there is no password, and DEBUG is allowed.
    pub fn new() -> Self {
        Self::default()
    }

    /// Every write is in the append-only file before it is acknowledged.
    pub fn aof(self) -> Self {
        self.with(&["--appendonly", "yes", "--appendfsync", "always"])
    }

    /// Clients must give this password.
    pub fn password(mut self, password: &str) -> Self {
        self.password = Some(password.into());
        self.with(&["--requirepass", password])
    }

    /// More arguments of redis-server.
    pub fn with(mut self, arguments: &[&str]) -> Self {
        self.arguments
            .extend(arguments.iter().map(|&argument| argument.into()));
        self
    }

    /// Starts the server on this port and waits until it answers.
    pub fn start_on(self, port: u16) -> Redis {
        let folder = tempfile::Builder::new().prefix("redis-").tempdir().unwrap();
        let mut child = spawn(folder.path(), port, &self.arguments, &[]);
        assert!(
            answers(&mut child, port),
            "redis-server did not start on port {port}"
        );
        Redis {
            child,
            port,
            folder,
            options: self,
        }
    }

    /// Starts the server and waits until it answers.
    pub fn start(self) -> Redis {
        let folder = tempfile::Builder::new().prefix("redis-").tempdir().unwrap();
        for _ in 0..20 {
            let port = free_port();
            let mut child = spawn(folder.path(), port, &self.arguments, &[]);
            if answers(&mut child, port) {
                return Redis {
                    child,
                    port,
                    folder,
                    options: self,
                };
            }
        }
        let log = fs::read_to_string(folder.path().join("log")).unwrap_or_default();
        panic!("redis-server did not start on any of 20 ports; it said:\n{log}");
    }
}

/// A redis-server process; killed when dropped.
pub struct Redis {
    child: Child,
    port: u16,
    folder: TempDir,
    options: Options,
}

impl Redis {
    /// A server without persistence and without a password.
    pub fn start() -> Self {
        Options::new().start()
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its URL, with the password if it has one.
    pub fn url(&self) -> String {
        match &self.options.password {
            None => format!("redis://127.0.0.1:{}", self.port),
            Some(password) => format!("redis://:{password}@127.0.0.1:{}", self.port),
        }
    }

    /// Its unix socket.
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("socket")
    }

    /// What redis-cli prints for a command.
    pub fn cli(&self, arguments: &[&str]) -> String {
        cli(self.port, self.options.password.as_deref(), arguments)
    }

    /// How often it has carried out each command so far, by its name in lower case.
    pub fn commands(&self) -> BTreeMap<String, u64> {
        let told = self.cli(&["info", "commandstats"]);
        let lines = told.lines().filter_map(|line| {
            let (name, figures) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
            let calls = figures.split(',').next()?.parse().ok()?;
            Some((name.to_owned(), calls))
        });
        lines.collect()
    }

    /// Kills it as `kill -9` does.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Stops it where it is (SIGSTOP): connections stay, nothing is answered.
    pub fn freeze(&self) {
        signal(&self.child, "STOP");
    }

    /// Lets a frozen server go on.
    pub fn thaw(&self) {
        signal(&self.child, "CONT");
    }

    /// Kills it if it runs, and starts it on the same port and folder.
    pub fn restart(&mut self) {
        self.kill();
        for _ in 0..50 {
            self.child = spawn(self.folder.path(), self.port, &self.options.arguments, &[]);
            if answers(&mut self.child, self.port) {
                return;
            }
            thread::sleep(Duration::from_millis(20));
        }
        let log = fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
        panic!(
            "redis-server did not come back on port {}; it said:\n{log}",
            self.port
        );
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A port of 127.0.0.1 that nobody uses now. It lies below those the kernel gives
/// to outgoing connections, so that a server finds it free again at a restart.
pub fn free_port() -> u16 {
    const FIRST: u16 = 12_000;
    const COUNT: u16 = 20_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let own = (std::process::id().wrapping_mul(7919) % u32::from(COUNT)) as u16;
    for _ in 0..COUNT {
        let port = FIRST + (NEXT.fetch_add(1, Ordering::Relaxed) % COUNT + own) % COUNT;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
    panic!(
        "no free port on 127.0.0.1 from {FIRST} to {}",
        FIRST + COUNT
    );
}

/// Sees to it that nothing is left of a folder when this process is gone, however it
/// ends: neither a process that works in it, nor the folder. What is static is never
/// dropped, and who is killed drops nothing.
pub fn end_with_us(folder: &Path) {
    // Its input ends with us. Whatever ends us, be it a signal to all our group, is not
    // to end it before it is done.
    const SCRIPT: &str = r#"
        trap '' HUP INT TERM
        all="
$(cat)
"
        for process in /proc/[0-9]*; do
            folder=$(readlink "$process/cwd") || continue
            case "$all" in
            *"
$folder
"*) kill -9 "${process#/proc/}" ;;
            esac
        done
        echo "$all" | while read -r folder; do
            [ -z "$folder" ] || rm -rf "$folder"
        done"#;
    static FOLDERS: LazyLock<Mutex<Child>> = LazyLock::new(|| {
        let mut command = Command::new("sh");
        command.args(["-c", SCRIPT]).stdin(Stdio::piped());
        command.stdout(Stdio::null()).stderr(Stdio::null());
        Mutex::new(command.process_group(0).spawn().unwrap())
    });
    let mut told = FOLDERS.lock().unwrap_or_else(PoisonError::into_inner);
    writeln!(told.stdin.as_mut().unwrap(), "{}", folder.display()).unwrap();
}

pub fn spawn(folder: &Path, port: u16, arguments: &[String], first: &[&str]) -> Child {
    end_with_us(folder);
    let log = fs::File::options()
        .create(true)
        .append(true)
        .open(folder.join("log"))
        .unwrap();
    let mut command = Command::new("redis-server");
    command
        .args(first)
        .args([
            "--port",
            &port.to_string(),
            "--bind",
            "127.0.0.1",
            "--daemonize",
            "no",
            "--loglevel",
            "notice",
        ])
        .args(["--dir", folder.to_str().unwrap()])
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log);
    if first.is_empty() {
        command
            .args([
                "--save",
                "",
                "--enable-debug-command",
                "local",
                "--unixsocket",
                "socket",
            ])
            .args(["--repl-diskless-sync-delay", "0"]);
    }
    match command.args(arguments).spawn() {
        Ok(child) => child,
        Err(error) => {
            panic!(
                "these tests need redis-server 7.0 or newer ({error}); install it: apt-get install redis-server"
            )
        }
    }
}

/// Whether the server comes to answer on its port; not if it ends before.
pub fn answers(child: &mut Child, port: u16) -> bool {
    let until = Instant::now() + Duration::from_secs(20);
    while Instant::now() < until {
        if child.try_wait().unwrap().is_some() {
            return false;
        }
        if let Some(answer) = ping(port)
            && (answer.starts_with("+PONG") || answer.starts_with("-NOAUTH"))
        {
            return child.try_wait().unwrap().is_none();
        }
        thread::sleep(Duration::from_millis(5));
    }
    let _ = child.kill();
    let _ = child.wait();
    false
}

fn ping(port: u16) -> Option<String> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(1))).ok()?;
    stream.write_all(b"PING\r\n").ok()?;
    let mut answer = [0; 64];
    let length = stream.read(&mut answer).ok()?;
    Some(String::from_utf8_lossy(&answer[..length]).into_owned())
}

pub fn cli(port: u16, password: Option<&str>, arguments: &[&str]) -> String {
    let mut command = Command::new("redis-cli");
    command.args(["-h", "127.0.0.1", "-p", &port.to_string()]);
    if let Some(password) = password {
        command.args(["--no-auth-warning", "-a", password]);
    }
    let output = command.args(arguments).output().unwrap_or_else(|error| {
        panic!("these tests need redis-cli ({error}); install it: apt-get install redis-server")
    });
    String::from_utf8_lossy(&output.stdout)
        .trim_end()
        .to_owned()
}

fn signal(child: &Child, name: &str) {
    let status = Command::new("kill")
        .args(["-s", name, &child.id().to_string()])
        .status()
        .unwrap();
    assert!(status.success(), "kill -s {name} {}", child.id());
}

/// Waits until something holds, for processes that settle by themselves.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(30);
    while !holds() {
        assert!(Instant::now() < until, "it never came to be that {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_server_keeps_its_port_and_its_data_across_a_kill() {
    let mut redis = Options::new().aof().password("secret").start();
    assert_eq!(redis.cli(&["set", "a", "1"]), "OK");
    redis.freeze();
    redis.thaw();
    redis.kill();
    redis.restart();
    assert_eq!(redis.cli(&["get", "a"]), "1");
    assert!(redis.url().contains("secret") && redis.socket().exists());
}
