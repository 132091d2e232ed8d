//! The original's fleetctl, as fleetd sees it: the requests that it sends for each command, byte
//! for byte as Go's HTTP client and the generated API client write them, and what it makes of the
//! answers. It speaks over any stream; what it would print is kept.

use std::io::{Read, Write};
use std::time::Duration;

use fleet_sandbox::wait_for;
use serde_json::{Value, json};

/// Everything that is waited for here takes well under a second, on a computer that others share.
const SOON: Duration = Duration::from_secs(30);

/// A stream that bytes go into and come out of.
pub(crate) trait Stream: Read + Write + Send {}

impl<T: Read + Write + Send> Stream for T {}

/// An original fleetctl with one connection, which it keeps.
pub(crate) struct Fleetctl {
    stream: Box<dyn Stream>,
    printed: Vec<String>,
}

/// An answer.
#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Fleetctl {
    pub(crate) fn over(stream: impl Stream + 'static) -> Fleetctl {
        Fleetctl {
            stream: Box::new(stream),
            printed: Vec::new(),
        }
    }

    /// What it has printed since it was last asked.
    pub(crate) fn printed(&mut self) -> Vec<String> {
        std::mem::take(&mut self.printed)
    }

    pub(crate) fn list_machines(&mut self) {
        for machine in self.all("machines", "machines") {
            let metadata = machine["metadata"].as_object().cloned().unwrap_or_default();
            let pairs: Vec<String> = metadata
                .iter()
                .map(|(key, value)| format!("{key}={}", text(value)))
                .collect();
            self.print(format!(
                "{}... {} {}",
                &text(&machine["id"])[..8],
                text(&machine["primaryIP"]),
                pairs.join(",")
            ));
        }
    }

    pub(crate) fn list_unit_files(&mut self) {
        for unit in self.all("units", "units") {
            let machine = match text(&unit["machineID"]) {
                "" => "-".to_owned(),
                id => format!("{}...", &id[..8]),
            };
            self.print(format!(
                "{} {} {} {machine}",
                text(&unit["name"]),
                text(&unit["desiredState"]),
                text(&unit["currentState"]),
            ));
        }
    }

    pub(crate) fn list_units(&mut self) {
        for state in self.all("state", "states") {
            self.print(format!(
                "{} {}... {} {} {}",
                text(&state["name"]),
                &text(&state["machineID"])[..8],
                text(&state["systemdLoadState"]),
                text(&state["systemdActiveState"]),
                text(&state["systemdSubState"]),
            ));
        }
    }

    /// `submit` of a unit file, also the first step of `load` and `start`. With `replace` the
    /// file goes over what the cluster has.
    pub(crate) fn submit(&mut self, name: &str, options: &[(&str, &str, &str)], replace: bool) {
        let options: Vec<Value> = options
            .iter()
            .map(|(section, name, value)| json!({"name": name, "section": section, "value": value}))
            .collect();
        match self.unit(name) {
            Ok(_) if !replace => return,
            Ok(_) => {}
            Err(error) => assert_eq!(error, "googleapi: Error 404: unit does not exist"),
        }
        let answer = self.put(name, &json!({"name": name, "options": options}));
        assert_eq!(answer.status, 201, "{answer:?}");
        self.wait(name, "inactive");
    }

    pub(crate) fn load(&mut self, name: &str) {
        self.set(name, "loaded");
        self.wait(name, "loaded");
    }

    pub(crate) fn start(&mut self, name: &str) {
        let unit = self.unit(name).unwrap();
        if text(&unit["desiredState"]) == "launched" {
            return;
        }
        self.set(name, "launched");
        if is_global(&unit) {
            self.print(format!("Triggered global unit {name} start"));
            return;
        }
        self.wait(name, "launched");
        self.until(&format!("{name} to be active"), |fleetctl| {
            let query = format!("state?alt=json&unitName={}", escaped(name));
            let page = fleetctl.get(&query).unwrap();
            let states = page["states"].as_array().cloned().unwrap_or_default();
            let is_up = states.iter().any(|state| {
                state["systemdActiveState"] == "active" && state["systemdLoadState"] == "loaded"
            });
            is_up.then_some(()).ok_or_else(|| page.to_string())
        });
    }

    pub(crate) fn stop(&mut self, name: &str) {
        let listed = self.all("units", "units");
        let unit = listed.iter().find(|unit| unit["name"] == name).unwrap();
        if is_global(unit) {
            self.set(name, "loaded");
            self.print(format!("Triggered global unit {name} stop"));
        } else if unit["currentState"] == "inactive" {
            self.print(format!("Unable to stop unit {name} in state inactive"));
        } else if unit["currentState"] == "launched" {
            self.set(name, "loaded");
            self.wait(name, "loaded");
        }
    }

    pub(crate) fn unload(&mut self, name: &str) {
        self.set(name, "inactive");
        self.wait(name, "inactive");
    }

    pub(crate) fn destroy(&mut self, name: &str) {
        let path = format!("units/{}?alt=json", escaped(name));
        let answer = self.send("DELETE", &path, None);
        match googleapi(&answer) {
            Ok(_) => self.print(format!("Destroyed {name}")),
            Err(error) => self.print(error),
        }
    }

    /// The unit, or the error as the client's library words it.
    pub(crate) fn unit(&mut self, name: &str) -> Result<Value, String> {
        self.get(&format!("units/{}?alt=json", escaped(name)))
    }

    /// A request for another state, which must be accepted.
    pub(crate) fn set(&mut self, name: &str, desired: &str) {
        if let Err(error) = self.try_set(name, desired) {
            panic!("{name} to {desired}: {error}");
        }
    }

    pub(crate) fn try_set(&mut self, name: &str, desired: &str) -> Result<(), String> {
        let answer = self.put(name, &json!({"desiredState": desired, "name": name}));
        googleapi(&answer)?;
        assert_eq!((answer.status, answer.body.as_str()), (204, ""));
        Ok(())
    }

    /// Waits for a current state, and prints what the original prints then.
    fn wait(&mut self, name: &str, state: &str) {
        let unit = self.until(&format!("{name} to be {state}"), |fleetctl| {
            let unit = fleetctl.unit(name).unwrap();
            // A global unit has no current state: the desired one counts.
            let is_there =
                is_global(&unit) && unit["desiredState"] == state || unit["currentState"] == state;
            match is_there {
                true => Ok(unit),
                false => Err(unit.to_string()),
            }
        });
        let current = text(&unit["currentState"]);
        let on = match text(&unit["machineID"]) {
            "" => String::new(),
            id => {
                let machines = self.all("machines", "machines");
                let machine = machines.iter().find(|machine| machine["id"] == id);
                let ip = text(&machine.expect("the unit's machine is listed")["primaryIP"]);
                format!(" on {}.../{ip}", &id[..8])
            }
        };
        self.print(format!("Unit {name} {current}{on}"));
    }

    fn until<T>(&mut self, what: &str, look: impl Fn(&mut Fleetctl) -> Result<T, String>) -> T {
        wait_for(what, SOON, || look(self)).unwrap()
    }

    /// All pages of a listing.
    fn all(&mut self, resource: &str, field: &str) -> Vec<Value> {
        let mut all = Vec::new();
        let mut token = String::new();
        loop {
            let page = self.get(&format!("{resource}?alt=json{token}")).unwrap();
            all.extend(page[field].as_array().cloned().unwrap_or_default());
            match text(&page["nextPageToken"]) {
                "" => return all,
                next => token = format!("&nextPageToken={}", next.replace('=', "%3D")),
            }
        }
    }

    fn get(&mut self, path: &str) -> Result<Value, String> {
        let answer = self.send("GET", path, None);
        googleapi(&answer)
    }

    fn put(&mut self, name: &str, body: &Value) -> Answer {
        let path = format!("units/{}?alt=json", escaped(name));
        self.send("PUT", &path, Some(&format!("{body}\n")))
    }

    /// One request on the connection that is kept, and its answer.
    fn send(&mut self, method: &str, path: &str, body: Option<&str>) -> Answer {
        // Go's client writes the whole URL into the first line when a path has escapes.
        let mut request = format!(
            "{method} http://domain-sock/fleet/v1/{path} HTTP/1.1\r\nHost: domain-sock\r\n\
             User-Agent: google-api-go-client/0.5\r\n"
        );
        if let Some(body) = body {
            request.push_str(&format!(
                "Content-Length: {}\r\nContent-Type: application/json\r\n",
                body.len()
            ));
        }
        request.push_str("Accept-Encoding: gzip\r\n\r\n");
        request.push_str(body.unwrap_or_default());
        self.stream.write_all(request.as_bytes()).unwrap();
        let mut bytes = Vec::new();
        let mut chunk = [0; 4096];
        loop {
            if let Some(answer) = parse(&bytes) {
                return answer;
            }
            let n = self.stream.read(&mut chunk).unwrap();
            let got = String::from_utf8_lossy(&bytes);
            assert_ne!(n, 0, "{method} {path}: the connection ended after {got:?}");
            bytes.extend_from_slice(&chunk[..n]);
        }
    }

    fn print(&mut self, line: String) {
        self.printed.push(line);
    }
}

/// A whole answer: the head, and a body of the length that it gives.
fn parse(bytes: &[u8]) -> Option<Answer> {
    let all = std::str::from_utf8(bytes).ok()?;
    let (head, body) = all.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("Content-Length: "))
        .map_or(0, |length| length.parse().unwrap());
    (body.len() == length).then(|| Answer {
        status,
        head: head.to_owned(),
        body: body.to_owned(),
    })
}

/// What the client's library makes of an answer.
fn googleapi(answer: &Answer) -> Result<Value, String> {
    let value = || serde_json::from_str(&answer.body).unwrap_or(Value::Null);
    if (200..300).contains(&answer.status) {
        return Ok(value());
    }
    assert!(
        answer.head.contains("Content-Type: application/json"),
        "{answer:?}"
    );
    let error = &value()["error"];
    match (error["code"].as_u64(), text(&error["message"])) {
        (Some(code), message) if !message.is_empty() => {
            assert_eq!(code, u64::from(answer.status));
            Err(format!("googleapi: Error {code}: {message}"))
        }
        _ => Err(format!(
            "googleapi: got HTTP response code {} with body: {}",
            answer.status, answer.body
        )),
    }
}

fn is_global(unit: &Value) -> bool {
    let options = unit["options"].as_array().cloned().unwrap_or_default();
    options
        .iter()
        .any(|option| option["name"] == "Global" && option["value"] == "true")
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("")
}

/// A name in a path.
fn escaped(name: &str) -> String {
    name.replace('@', "%40")
}
