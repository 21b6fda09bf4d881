//! An admin port that answers what a test tells it. It knows HTTP as far as one answer
//! goes, and nothing of figures.

use std::{
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

/// What it answers, and what it was asked.
#[derive(Default)]
pub struct Script {
    pub status: u16,
    pub body: String,
    /// All of what it answers to a question for `/`, head and body; the same as to any
    /// other where there is none.
    pub page: Option<String>,
    /// The first line and the headers of each question.
    pub asked: Vec<Vec<String>>,
}

/// The port; it is closed when this is dropped.
pub struct AdminPort {
    pub address: SocketAddr,
    pub script: Arc<Mutex<Script>>,
    over: Arc<AtomicBool>,
}

impl AdminPort {
    pub fn answers(status: u16, body: impl Into<String>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let script = Script {
            status,
            body: body.into(),
            ..Script::default()
        };
        let port = Self {
            address: listener.local_addr().unwrap(),
            script: Arc::new(Mutex::new(script)),
            over: Arc::default(),
        };
        let (script, over) = (port.script.clone(), port.over.clone());
        thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                if over.load(Ordering::SeqCst) {
                    return;
                }
                // Who goes away before the answer is none of its business.
                let _ = answer(stream, &script);
            }
        });
        port
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for AdminPort {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
    }
}

fn answer(mut stream: TcpStream, script: &Mutex<Script>) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let mut head = Vec::new();
    while let Some(line) = lines.next().transpose()? {
        if line.is_empty() {
            break;
        }
        head.push(line);
    }
    let (status, body) = {
        let mut script = script.lock().unwrap();
        let page = head.first().is_some_and(|line| line.starts_with("GET / "));
        script.asked.push(head);
        if let Some(page) = script.page.as_ref().filter(|_| page) {
            return stream.write_all(page.as_bytes());
        }
        (script.status, script.body.clone())
    };
    write!(
        stream,
        "HTTP/1.1 {status} So\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )
}
