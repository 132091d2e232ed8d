//! A headless Chromium, driven over the W3C's WebDriver protocol, and a way for it to a unix socket.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use fleet_sandbox::wait_for;
use serde_json::{Value, json};

use crate::cluster::SOON;

/// An answer of the driver takes no longer, on a computer that others share.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);

/// A key of the keyboard, as WebDriver names it.
pub(crate) const ENTER: &str = "\u{e007}";
pub(crate) const ESCAPE: &str = "\u{e00c}";

/// How WebDriver names the reference to an element.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// A loopback port that leads to a unix socket, as `ssh -L` makes one. Its connections end with the
/// test's process.
pub(crate) fn forward(socket: &Path) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let socket = socket.to_owned();
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let Ok(server) = UnixStream::connect(&socket) else {
                continue;
            };
            let (from, to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            std::thread::spawn(move || {
                copy(&from, &to);
                let _ = to.shutdown(Shutdown::Both);
            });
            std::thread::spawn(move || {
                copy(&server, &client);
                let _ = client.shutdown(Shutdown::Both);
            });
        }
    });
    port
}

/// Until either end has gone, which is no failure.
fn copy(mut from: impl Read, mut to: impl Write) {
    let _ = std::io::copy(&mut from, &mut to);
}

/// A window of a browser. Dropped, the browser ends.
pub(crate) struct Browser {
    driver: Child,
    port: u16,
    session: String,
    screenshots: PathBuf,
    /// The browser's profile.
    _profile: tempfile::TempDir,
}

impl Browser {
    pub(crate) fn start() -> Browser {
        let profile = tempfile::tempdir().unwrap();
        let mut driver = Command::new("chromedriver")
            .arg("--port=0")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("chromedriver (package chromium-driver)");
        let stdout = BufReader::new(driver.stdout.take().unwrap());
        // "ChromeDriver was started successfully on port 40123."
        let port = stdout
            .lines()
            .map_while(Result::ok)
            .find_map(|line| {
                let port = line.split("successfully on port ").nth(1)?;
                port.trim_end_matches('.').parse().ok()
            })
            .expect("chromedriver says its port");
        let mut browser = Browser {
            driver,
            port,
            session: String::new(),
            screenshots: PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("page"),
            _profile: profile,
        };
        std::fs::create_dir_all(&browser.screenshots).unwrap();
        let profile = format!("--user-data-dir={}", browser._profile.path().display());
        let arguments = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--window-size=1200,900",
            &profile,
        ];
        let made = browser.call(
            "POST",
            "/session",
            &json!({"capabilities": {"alwaysMatch": {
                "goog:chromeOptions": {"args": arguments},
                "goog:loggingPrefs": {"browser": "ALL"},
            }}}),
        );
        browser.session = made["sessionId"].as_str().unwrap().to_owned();
        browser
    }

    pub(crate) fn open(&self, url: &str) {
        self.session_call("POST", "/url", &json!({"url": url}));
    }

    /// What a script gives back.
    #[track_caller]
    pub(crate) fn script(&self, script: &str) -> Value {
        let body = json!({"script": script, "args": []});
        self.session_call("POST", "/execute/sync", &body)
    }

    /// The words that can be seen.
    pub(crate) fn text(&self) -> String {
        let text = self.script("return document.body.innerText");
        text.as_str().unwrap_or_default().to_owned()
    }

    /// Waits until all these words can be seen.
    #[track_caller]
    pub(crate) fn wait_for(&self, words: &[&str]) {
        self.wait_until(&format!("{words:?} on the page"), |text| {
            words.iter().all(|word| text.contains(word))
        });
    }

    #[track_caller]
    pub(crate) fn wait_until(&self, what: &str, is_so: impl Fn(&str) -> bool) {
        wait_for(what, SOON, || {
            let text = self.text();
            if is_so(&text) { Ok(()) } else { Err(text) }
        })
        .unwrap();
    }

    /// Clicks on what a selector finds, and says that it is meant if that is asked.
    #[track_caller]
    pub(crate) fn click(&self, selector: &str, confirms: bool) {
        let element = self.find(selector);
        self.session_call("POST", &format!("/element/{element}/click"), &json!({}));
        if confirms {
            self.session_call("POST", "/alert/accept", &json!({}));
        }
    }

    /// Presses keys, wherever the focus is.
    pub(crate) fn press(&self, keys: &str) {
        let actions: Vec<Value> = keys
            .chars()
            .flat_map(|key| {
                let key = key.to_string();
                ["keyDown", "keyUp"].map(|kind| json!({"type": kind, "value": key}))
            })
            .collect();
        let body = json!({"actions": [{"type": "key", "id": "keyboard", "actions": actions}]});
        self.session_call("POST", "/actions", &body);
    }

    /// The names that a screen reader gives to all that can be used.
    pub(crate) fn labels(&self) -> Vec<String> {
        let found = self.session_call(
            "POST",
            "/elements",
            &json!({"using": "css selector", "value": "a, button, table, nav, pre[tabindex], :not([hidden]) > input"}),
        );
        let elements = found.as_array().unwrap().iter();
        elements
            .map(|element| {
                let id = element[ELEMENT].as_str().unwrap();
                let label =
                    self.session_call("GET", &format!("/element/{id}/computedlabel"), &Value::Null);
                label.as_str().unwrap_or_default().to_owned()
            })
            .collect()
    }

    /// As if the user liked it dark (or `light`), on a window of this width.
    pub(crate) fn look(&self, scheme: &str, width: u32) {
        let media = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        self.devtools("Emulation.setEmulatedMedia", &media);
        let size = json!({"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": false});
        self.devtools("Emulation.setDeviceMetricsOverride", &size);
    }

    /// A picture of the page, for people: `target/tmp/page/NAME.png`.
    pub(crate) fn screenshot(&self, name: &str) {
        let picture = self.session_call("GET", "/screenshot", &Value::Null);
        let bytes = base64(picture.as_str().unwrap());
        assert!(bytes.starts_with(b"\x89PNG"), "{name} is a picture");
        std::fs::write(self.screenshots.join(format!("{name}.png")), bytes).unwrap();
    }

    /// What the page has had the browser complain of.
    pub(crate) fn complaints(&self) -> Vec<Value> {
        let log = self.session_call("POST", "/se/log", &json!({"type": "browser"}));
        log.as_array().cloned().unwrap_or_default()
    }

    fn devtools(&self, command: &str, params: &Value) {
        let body = json!({"cmd": command, "params": params});
        self.session_call("POST", "/goog/cdp/execute", &body);
    }

    #[track_caller]
    fn find(&self, selector: &str) -> String {
        let body = json!({"using": "css selector", "value": selector});
        let found = self.session_call("POST", "/element", &body);
        found[ELEMENT].as_str().unwrap().to_owned()
    }

    #[track_caller]
    fn session_call(&self, method: &str, path: &str, body: &Value) -> Value {
        self.call(method, &format!("/session/{}{path}", self.session), body)
    }

    /// Asks the driver; an error of it is a failure.
    #[track_caller]
    fn call(&self, method: &str, path: &str, body: &Value) -> Value {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(ANSWER_WITHIN)).unwrap();
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            self.port,
            body.len()
        )
        .unwrap();
        let mut answer = Vec::new();
        let mut reader = BufReader::new(stream);
        let mut length = 0;
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).unwrap();
            let line = line.trim_end().to_ascii_lowercase();
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
            if line.is_empty() {
                break;
            }
        }
        reader.take(length).read_to_end(&mut answer).unwrap();
        let mut answer: Value = serde_json::from_slice(&answer).unwrap();
        let value = answer["value"].take();
        assert!(
            value.get("error").is_none(),
            "{method} {path} {body}: {}",
            value["message"]
        );
        value
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The driver ends its browser with the session; it does not end by itself.
        if !self.session.is_empty() && !std::thread::panicking() {
            self.session_call("DELETE", "", &Value::Null);
        }
        if std::thread::panicking() {
            // As `call` does, but for what must not panic once more.
            if let Ok(mut stream) = TcpStream::connect(("127.0.0.1", self.port)) {
                let request = format!(
                    "DELETE /session/{} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n",
                    self.session
                );
                let _ = stream.set_read_timeout(Some(ANSWER_WITHIN));
                let _ = stream.write_all(request.as_bytes());
                let _ = stream.read(&mut [0; 64]);
            }
        }
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

/// RFC 4648, as WebDriver sends pictures.
fn base64(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let mut bits = 0_u32;
    let mut n_bits = 0;
    for c in text.bytes() {
        let six = match c {
            b'A'..=b'Z' => c - b'A',
            b'a'..=b'z' => c - b'a' + 26,
            b'0'..=b'9' => c - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => continue,
        };
        bits = bits << 6 | u32::from(six);
        n_bits += 6;
        if n_bits >= 8 {
            n_bits -= 8;
            bytes.push((bits >> n_bits & 0xff) as u8);
        }
    }
    bytes
}
