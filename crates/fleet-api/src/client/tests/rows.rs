//! A listing in rows, whoever answers, however it is cut.

use super::*;

const PAGE: &str = "GET /fleet/v2/units?fields=states";

async fn names(client: &Client) -> Result<Vec<String>, Error> {
    let mut names = Vec::new();
    let listed = client.unit_rows(&["states"], |page| {
        names.extend(page.units.iter().map(|unit| unit.name.to_string()));
    });
    listed.await.map(|()| names)
}

#[tokio::test]
async fn pages_of_one_answer_come_one_by_one() {
    let (client, mut requests) = client(&[
        http(
            "200 OK",
            &[
                "{\"revision\":7,\"units\":[{\"name\":\"a\"}],\"more\":true,\"warnings\":[\"w\"]}\n{\"rev",
                "ision\":7,\"units\":[{\"name\":\"b\"}]}\n",
            ],
        ),
        http("200 OK", &["{\"units\":[]}\n"]),
    ]);
    assert_eq!(names(&client).await.unwrap(), ["a", "b"]);
    assert_eq!(client.take_warnings(), ["w"]);
    assert!(names(&client).await.unwrap().is_empty());
    assert_eq!(
        seen(&mut requests),
        [
            "dial",
            &format!("{PAGE} HTTP/1.1"),
            &format!("{PAGE} HTTP/1.1")
        ]
    );
}

/// An older fleetd answers with a page of its own, of more than was asked for.
#[tokio::test]
async fn single_pages_are_followed() {
    let (client, mut requests) = client(&[
        http(
            "200 OK",
            &["{\"revision\":7,\"units\":[{\"name\":\"a@1\",\"reason\":\"x\"}],\"more\":true}"],
        ),
        http("200 OK", &["{\"revision\":7,\"units\":[{\"name\":\"b\"}]}"]),
    ]);
    assert_eq!(names(&client).await.unwrap(), ["a@1", "b"]);
    assert_eq!(
        seen(&mut requests)[2],
        format!("{PAGE}&after=a@1&revision=7 HTTP/1.1")
    );
}

#[tokio::test]
async fn an_answer_that_is_cut_off_is_taken_up_at_its_revision() {
    let whole = "{\"revision\":7,\"units\":[{\"name\":\"a\"}],\"more\":true}\n";
    // In the midst of a page; and behind one, by a server that stops in order.
    let cut: &str = format!(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{whole}\r\nff\r\n{{\"rev{CUT}",
        whole.len()
    )
    .leak();
    for first in [cut, http("200 OK", &[whole])] {
        let (client, mut requests) = client(&[
            first,
            http(
                "200 OK",
                &["{\"revision\":7,\"units\":[{\"name\":\"b\"}]}\n"],
            ),
        ]);
        assert_eq!(names(&client).await.unwrap(), ["a", "b"]);
        let asked = seen(&mut requests);
        let again = format!("{PAGE}&after=a&revision=7 HTTP/1.1");
        assert_eq!(asked.last(), Some(&again), "{asked:?}");
    }
}

#[tokio::test]
async fn what_does_not_go_on_is_an_error() {
    let page = "{\"units\":[{\"name\":\"b\"}],\"more\":true}\n";
    for (chunks, word) in [
        (&[page, page][..], "does not end"),
        (&["{\"units\":[],\"more\":true}\n"], "does not end"),
        (
            &["{\"units\":[]}\n{\"units\":[{\"name\":\"b\"}]}\n"],
            "does not end",
        ),
        (&[], "ended early"),
        (&["{\"units\":7}\n"], "invalid type"),
    ] {
        let (client, _requests) = client(&[http("200 OK", chunks)]);
        let error = names(&client).await.unwrap_err().to_string();
        assert!(error.contains(word), "{chunks:?}: {error}");
    }
}
