//! The page of the admin port in a browser, at a live server. It does not know how the
//! page draws.

use std::{
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpStream, UdpSocket},
    time::Duration,
};

use riptide_persistence::proto::v1::{GetRequest, SetRequest};
use serde_json::{Value, json};

use super::{admin_port::AdminPort, browser::Browser};
use crate::server::{ADMIN_KEY, Backend, Server, Tenant};

/// The lines of the plots, in the order that the page shows them in.
const LINES: [&str; 11] = [
    "calls_per_second",
    "errors_per_second",
    "hit_ratio",
    "near_hit_ratio",
    "p99_ms",
    "p50_ms",
    "store_p99_ms",
    "in_flight",
    "connections",
    "rss_bytes",
    "near_bytes",
];

/// The columns of numbers of the table.
const COLUMNS: [&str; 6] = [
    "calls_per_second",
    "hit_ratio",
    "errors_per_second",
    "throttled_per_second",
    "received_bytes_per_second",
    "sent_bytes_per_second",
];

/// Calls of a tenant, until this is dropped.
struct Traffic(tokio::task::JoinHandle<()>);

impl Traffic {
    fn of(tenant: &Tenant, pause_ms: u64) -> Self {
        let mut cache = tenant.clients.cache.clone();
        Self(tokio::spawn(async move {
            for number in 0_u64.. {
                let set = SetRequest {
                    key: format!("key-{}", number % 10),
                    value: vec![b'x'; 200].into(),
                    ..Default::default()
                };
                let get = GetRequest {
                    key: format!("key-{}", number % 15),
                    ..Default::default()
                };
                // The server is stopped under it.
                let _ = cache.set(set).await;
                let _ = cache.get(get).await;
                tokio::time::sleep(Duration::from_millis(pause_ms)).await;
            }
        }))
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_shows_what_the_figures_tell_and_when_there_are_none() {
    let server = Server::start(Backend::Embedded).await;
    let admin_address = server.admin_address;
    let (acme, globex) = (server.tenant("acme").await, server.tenant("globex").await);
    let traffic = (Traffic::of(&acme, 5), Traffic::of(&globex, 50));
    let browser = Browser::start();
    let base = format!("http://{admin_address}/");
    browser.open(&base);
    browser.until("document.querySelector('#state').dataset.state === 'live'");
    // Lines with points, and both tenants.
    browser.until("document.querySelector('#plot-0 .line').getAttribute('d').includes('L')");
    browser.until("[...document.querySelectorAll('#rows th')].filter((th) => ['acme', 'globex'].includes(th.textContent)).length === 2");
    browser.click("#pause");
    assert_eq!(
        browser.run("return document.querySelector('#state').dataset.state"),
        "paused"
    );

    let network = browser.log("performance");
    let shown = shown(&browser, &network);
    as_told(&browser, &shown);
    let about = browser.text("#about");
    for told in [&shown["version"], &shown["backend"]] {
        assert!(about.contains(told.as_str().unwrap()), "{about}");
    }
    let parts = shown["health"].as_array().unwrap().len();
    assert!(parts > 0);
    let healthy =
        browser.run("return document.querySelectorAll('#health li:not(.failing)').length");
    assert_eq!(healthy, parts);
    in_order(&browser);
    read_by_keys(&browser);
    quotas(&browser, &shown);
    fits(&browser);

    // It asks this server, and nobody else; nothing went wrong meanwhile.
    let asked = requests(&network);
    assert!(asked.len() > 1, "{asked:?}");
    for url in asked {
        // The browser opens with a page of its own.
        let is_own = url.starts_with("data:") || url.starts_with("chrome://");
        assert!(url.starts_with(&base) || is_own, "{url}");
    }
    assert_eq!(browser.log("browser"), Vec::<Value>::new());
    in_force(&browser);

    browser.click("#pause");
    drop(traffic);
    server.stop().await;
    browser
        .until("document.querySelector('#state-text').textContent.startsWith('No answer since ')");
    assert_eq!(
        browser.run("return document.body.classList.contains('stale')"),
        true
    );
    // What was known is still there to be read.
    browser.until("document.querySelectorAll('#rows th').length >= 2");
    let again = Server::start_with(Backend::Embedded, |config| {
        config.server.admin_listen = admin_address;
    })
    .await;
    browser.until("document.querySelector('#state').dataset.state === 'live'");
    assert_eq!(
        browser.run("return document.body.classList.contains('stale')"),
        false
    );
    assert!(
        browser
            .text("#outage")
            .starts_with("Last without an answer: ")
    );
    again.stop().await;
}

/// The answer that the page shows: the one of the time that it says.
fn shown(browser: &Browser, network: &[Value]) -> Value {
    let time = browser.run("return Number(document.body.dataset.time)");
    let answers = network.iter().filter_map(|entry| {
        let event: Value = serde_json::from_str(entry["message"].as_str()?).ok()?;
        let message = &event["message"];
        let url = message["params"]["response"]["url"].as_str()?;
        (message["method"] == "Network.responseReceived" && url.ends_with("/figures"))
            .then(|| message["params"]["requestId"].clone())
    });
    let bodies = answers.map(|request| {
        let body = browser.devtools("Network.getResponseBody", json!({"requestId": request}));
        serde_json::from_str::<Value>(body["body"].as_str().unwrap()).unwrap()
    });
    let mut bodies: Vec<_> = bodies.collect();
    bodies.retain(|body| body["time_ms"] == time);
    bodies
        .pop()
        .expect("the page shows an answer of the server")
}

/// Every value and every cell is that of the figures.
fn as_told(browser: &Browser, figures: &Value) {
    let values = browser.run(
        "return [...document.querySelectorAll('.plot dd')].map((dd) => [dd.dataset.value, dd.textContent])",
    );
    let values = values.as_array().unwrap();
    assert_eq!(values.len(), LINES.len());
    for (line, value) in LINES.iter().zip(values) {
        let told = figures["series"][line].as_array().unwrap().last().unwrap();
        assert_eq!(number(&value[0]), told.as_f64(), "{line}");
        assert_eq!(value[1] == "–", told.is_null(), "{line}: {value}");
    }
    let text = |line: &str| {
        let at = LINES.iter().position(|known| *known == line).unwrap();
        values[at][1].as_str().unwrap().to_owned()
    };
    assert!(text("connections").parse::<u32>().unwrap() > 0);
    assert!(text("rss_bytes").ends_with(" MiB") && text("p99_ms").ends_with("s"));

    // A point of a line for each value that there is.
    let points = browser.run(
        "return [...document.querySelectorAll('.chart')].flatMap((chart) => [1, 2, 3].map((n) => \
         chart.querySelector(`.line.s${n}`)?.getAttribute('d')).filter((d) => d !== undefined)\
         .map((d) => (d.match(/[ML]/g) ?? []).length))",
    );
    let told = LINES.iter().map(|line| {
        let points = figures["series"][line].as_array().unwrap();
        points.iter().filter(|point| !point.is_null()).count()
    });
    // The page has the first line of a plot above the others, and so last in the picture.
    assert_eq!(points, json!(told.collect::<Vec<_>>()));

    let rows = browser.run(
        "return [...document.querySelectorAll('#rows tr')].map((tr) => [tr.querySelector('th').textContent, \
         [...tr.querySelectorAll('td[data-label]')].map((td) => td.dataset.value)])",
    );
    let tenants = figures["tenants"].as_array().unwrap();
    assert_eq!(rows.as_array().unwrap().len(), tenants.len());
    for row in rows.as_array().unwrap() {
        let tenant = tenants
            .iter()
            .find(|tenant| tenant["tenant_id"] == row[0])
            .unwrap();
        for (column, value) in COLUMNS.iter().zip(row[1].as_array().unwrap()) {
            assert_eq!(
                number(value),
                tenant[column].as_f64(),
                "{}: {column}",
                row[0]
            );
        }
    }
}

fn number(value: &Value) -> Option<f64> {
    value.as_str().unwrap().parse().ok()
}

/// Heads order the rows, and say so.
fn in_order(browser: &Browser) {
    let calls = "return [...document.querySelectorAll('#rows tr:not(.rest) td:nth-of-type(1)')].map((td) => Number(td.dataset.value))";
    let is_sorted = |falling: bool| {
        let calls = browser.run(calls);
        let calls: Vec<_> = calls
            .as_array()
            .unwrap()
            .iter()
            .map(|n| n.as_f64().unwrap())
            .collect();
        match falling {
            true => calls.is_sorted_by(|a, b| a >= b),
            false => calls.is_sorted(),
        }
    };
    let told = || {
        browser.run(
            "return document.querySelector('#columns th:nth-child(2)').getAttribute('aria-sort')",
        )
    };
    assert!(is_sorted(true) && told() == "descending");
    browser.click("#columns th:nth-child(2) button");
    assert!(is_sorted(false) && told() == "ascending");
    browser.click("#columns th:nth-child(1) button");
    assert_eq!(browser.text("#rows th"), "acme");
    assert_eq!(told(), Value::Null);
}

/// Values of earlier can be read without a mouse.
fn read_by_keys(browser: &Browser) {
    let told =
        || browser.run("return document.querySelector('#plot-3').getAttribute('aria-valuetext')");
    browser.run("document.querySelector('#plot-3').focus()");
    let newest = told();
    assert!(newest.as_str().unwrap().contains("store p99 "), "{newest}");
    browser.run("document.querySelector('#plot-3').dispatchEvent(new KeyboardEvent('keydown', {key: 'ArrowLeft', bubbles: true}))");
    assert_ne!(told(), newest);
    let tip = browser.run("const tip = document.querySelectorAll('.tip')[3]; return tip.hidden ? null : tip.textContent");
    assert!(tip.as_str().unwrap().contains("p50 "), "{tip}");
    let hairs = browser.run("return [...document.querySelectorAll('.hair')].filter((hair) => hair.getAttribute('visibility') === 'visible').length");
    assert_eq!(hairs, 6);
    browser.run("document.querySelector('#plot-3').blur()");
    let hairs = browser.run("return document.querySelectorAll('.hair[visibility=visible]').length");
    assert_eq!(hairs, 0);
}

/// The fullest quota is the one that the figures have the largest part of used.
fn quotas(browser: &Browser, figures: &Value) {
    for tenant in figures["tenants"].as_array().unwrap() {
        let id = tenant["tenant_id"].as_str().unwrap();
        let part = |quota: &Value| {
            let (used, limit) = (quota["used"].as_f64()?, quota["limit"].as_f64()?);
            (limit > 0.0).then(|| used / limit)
        };
        let quotas = tenant["quotas"].as_array().cloned().unwrap_or_default();
        let fullest = quotas.iter().filter_map(part).reduce(f64::max);
        let shown = browser.run(&format!(
            "const row = [...document.querySelectorAll('#rows tr')].find((tr) => tr.querySelector('th').textContent === {id:?}); \
             const details = row.querySelector('details'); \
             return details.hidden ? null : [details.querySelector('.part').textContent, details.querySelectorAll('li').length]"
        ));
        match fullest {
            None => assert_eq!(shown, Value::Null, "{id}"),
            Some(part) => {
                let percents = match (part * 100.0 + 1e-9).floor() {
                    0.0 if part > 0.0 => "<1 %".to_owned(),
                    percents => format!("{percents} %"),
                };
                let text = shown[0].as_str().unwrap().trim_start_matches("! ");
                assert_eq!(
                    (text, &shown[1]),
                    (percents.as_str(), &json!(quotas.len())),
                    "{id}"
                );
            }
        }
    }
}

/// Nothing is wider than the window, however narrow.
fn fits(browser: &Browser) {
    for width in [360, 800, 1600] {
        let size = json!({"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": false});
        browser.devtools("Emulation.setDeviceMetricsOverride", size);
        browser.until(&format!("window.innerWidth === {width}"));
        browser.until("document.documentElement.scrollWidth <= window.innerWidth");
        browser.until("[...document.querySelectorAll('.chart')].every((chart) => Number(chart.getAttribute('viewBox').split(' ')[2]) === Math.round(chart.clientWidth))");
    }
    browser.devtools("Emulation.clearDeviceMetricsOverride", json!({}));
}

/// The URLs that were asked for.
fn requests(network: &[Value]) -> Vec<String> {
    let urls = network.iter().filter_map(|entry| {
        let event: Value = serde_json::from_str(entry["message"].as_str()?).ok()?;
        let message = &event["message"];
        (message["method"] == "Network.requestWillBeSent").then(|| {
            message["params"]["request"]["url"]
                .as_str()
                .map(str::to_owned)
        })?
    });
    urls.collect()
}

/// What the policy forbids does not happen, whoever tries it.
fn in_force(browser: &Browser) {
    let done = browser.run_awaiting(
        "const done = {violations: []};
         document.addEventListener('securitypolicyviolation', (event) => done.violations.push(event.effectiveDirective));
         const script = document.createElement('script');
         try { script.textContent = 'window.owned = true'; } catch (error) { done.text = error.name; }
         document.body.append(script);
         try { document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"window.owned = true\">'); } catch (error) { done.markup = error.name; }
         const style = document.createElement('style');
         style.append('body { display: none }');
         document.head.append(style);
         try { await fetch('http://127.0.0.1:9/'); } catch (error) { done.fetch = error.name; }
         await new Promise((resolve) => setTimeout(resolve, 200));
         done.owned = window.owned ?? null;
         done.display = getComputedStyle(document.body).display;
         return done;",
    );
    assert_eq!(done["owned"], Value::Null, "{done}");
    assert_eq!(done["text"], "TypeError", "{done}");
    assert_eq!(done["markup"], "TypeError", "{done}");
    assert_eq!(done["fetch"], "TypeError", "{done}");
    assert_eq!(done["display"], "block", "{done}");
    let violations = done["violations"].as_array().unwrap();
    for directive in ["connect-src", "style-src-elem", "require-trusted-types-for"] {
        assert!(
            violations.contains(&json!(directive)),
            "{directive}: {done}"
        );
    }
}

/// Whatever the figures say, it is text, and the page goes on.
#[tokio::test(flavor = "multi_thread")]
async fn no_figures_become_markup() {
    let server = Server::start(Backend::Embedded).await;
    let (head, body) = get(server.admin_address, "/", None);
    let port = AdminPort::answers(200, "");
    let hostile = "<script>window.owned = true</script><img src=x onerror='window.owned = true'>";
    {
        let mut script = port.script.lock().unwrap();
        script.page = Some(format!("{head}\r\n\r\n{body}"));
        script.body = json!({
            "replica": hostile, "version": hostile, "backend": hostile, "time_ms": 1_795_651_402_000_u64,
            "health": [{"service": hostile, "serving": false, "trouble": hostile}, null, 7],
            "series": {"time_ms": [1_795_651_397_000_u64, 1_795_651_402_000_u64, "x"], "calls_per_second": [1, 1e308],
                       "errors_per_second": "many", "hit_ratio": [null, -1], "p99_ms": {}},
            "tenants": [
                {"tenant_id": hostile, "calls_per_second": "many", "hit_ratio": 7,
                 "quotas": [{"metric": hostile, "used": 1, "limit": 1}, {"metric": "x"}, null]},
                {}, null, 17, {"tenant_id": "__proto__", "calls_per_second": 3, "quotas": {}},
            ],
        })
        .to_string();
    }
    let browser = Browser::start();
    browser.open(&port.url());
    browser.until("document.querySelector('#state').dataset.state === 'live'");
    let rows = browser
        .run("return [...document.querySelectorAll('#rows th')].map((th) => th.textContent)");
    assert_eq!(rows, json!(["__proto__", "(nameless)", hostile]));
    assert!(browser.text("#about").contains(hostile));
    assert_eq!(browser.text("#rows tr:nth-child(3) .metric"), hostile);
    let injected = browser.run("return [window.owned ?? null, document.querySelectorAll('img').length, document.querySelectorAll('script').length]");
    assert_eq!(injected, json!([null, 0, 1]));

    // What it does not understand at all is no answer, and then it is again.
    let figures = std::mem::replace(&mut port.script.lock().unwrap().body, "[1, 2".to_owned());
    browser.until("document.querySelector('#state').dataset.state === 'gone'");
    port.script.lock().unwrap().body = figures;
    browser.until("document.querySelector('#state').dataset.state === 'live'");
    port.script.lock().unwrap().status = 401;
    browser.until("document.querySelector('#state-text').textContent.includes('admin key')");
    let errors: Vec<_> = browser
        .log("browser")
        .into_iter()
        .filter(|entry| !entry["message"].as_str().unwrap().contains("401"))
        .collect();
    assert_eq!(errors, Vec::<Value>::new());
    server.stop().await;
}

#[tokio::test]
async fn the_page_is_one_answer_that_nobody_keeps_or_frames() {
    let server = Server::start(Backend::Embedded).await;
    let (head, body) = get(server.admin_address, "/", None);
    let head = head.to_lowercase();
    assert!(head.starts_with("http/1.1 200 "), "{head}");
    for header in [
        "content-type: text/html; charset=utf-8",
        "cache-control: no-store",
        "x-content-type-options: nosniff",
        "x-frame-options: deny",
        "referrer-policy: no-referrer",
        "content-security-policy: default-src 'none'; ",
        "frame-ancestors 'none'",
    ] {
        assert!(head.contains(header), "{header}: {head}");
    }
    assert!(
        !head.contains("unsafe") && !head.contains("set-cookie"),
        "{head}"
    );
    assert!(body.starts_with("<!doctype html>") && body.len() < 64 << 10);
    server.stop().await;
}

/// On an address that others reach, the page and the figures want the admin key, by the
/// two ways to bring it.
#[tokio::test]
async fn beyond_loopback_the_admin_key_is_wanted() {
    let Some(ip) = own_address() else {
        // A machine without a network has nobody to be protected from; the rule itself
        // is held to by the unit tests of the admin port.
        return;
    };
    let server = Server::start_with(Backend::Embedded, |config| {
        config.server.admin_listen = SocketAddr::from(([0, 0, 0, 0], 0));
        config.server.allow_plaintext_beyond_loopback = true;
    })
    .await;
    let address = SocketAddr::new(ip, server.admin_address.port());
    let basic = |key: &str| {
        let pair = data_encoding::BASE64.encode(format!("admin:{key}").as_bytes());
        format!("Basic {pair}")
    };
    for path in ["/", "/figures"] {
        let (head, body) = get(address, path, None);
        assert!(head.starts_with("HTTP/1.1 401 "), "{path}: {head}");
        assert!(
            head.to_lowercase().contains("www-authenticate: basic "),
            "{path}: {head}"
        );
        assert!(
            !body.contains("series") && !body.contains("<script"),
            "{body}"
        );
        for wrong in [basic("rta_wrong"), "Bearer rta_wrong".to_owned()] {
            let (head, _) = get(address, path, Some(&wrong));
            assert!(head.starts_with("HTTP/1.1 401 "), "{path}: {head}");
        }
        for right in [basic(ADMIN_KEY), format!("Bearer {ADMIN_KEY}")] {
            let (head, _) = get(address, path, Some(&right));
            assert!(head.starts_with("HTTP/1.1 200 "), "{path}: {head}");
        }
    }
    server.stop().await;
}

/// The address of this machine that others would reach it at. Nothing is sent.
fn own_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    let ip = socket.local_addr().ok()?.ip();
    (!ip.is_loopback() && !ip.is_unspecified()).then_some(ip)
}

/// The head and the body of an answer.
fn get(address: SocketAddr, path: &str, key: Option<&str>) -> (String, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    let key = key
        .map(|key| format!("authorization: {key}\r\n"))
        .unwrap_or_default();
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nhost: {address}\r\n{key}connection: close\r\n\r\n"
    )
    .unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), body.to_owned())
}
