// One event stream for all tabs of a browser: a shared worker that holds it and hands events on.
// A browser opens six connections to a place at most, and each stream keeps one for itself.
const tabs = new Map(); // port → {page, seen}
let source = null;
let open = "";
let timer = 0;
const SILENT_MS = 150_000; // hidden tabs are let run once a minute

function tell(message, page) {
  for (const [port, tab] of tabs) if (page === undefined || tab.page === page) port.postMessage(message);
}

function listen() {
  const pages = [...new Set([...tabs.values()].map((tab) => tab.page))].sort();
  const wanted = pages.map((page) => `page=${encodeURIComponent(page)}`).join("&");
  if (wanted === open && source && source.readyState !== EventSource.CLOSED) return;
  open = wanted;
  clearTimeout(timer);
  source?.close();
  source = null;
  if (!pages.length) return;
  source = new EventSource(`/events?${wanted}`);
  source.onopen = () => tell({ kind: "open" });
  source.onerror = () => {
    const closed = source.readyState === EventSource.CLOSED;
    tell({ kind: closed ? "closed" : "lost" });
    if (closed) timer = setTimeout(listen, 3000);
  };
  for (const kind of ["fragment", "master"]) {
    source.addEventListener(kind, (event) => {
      const data = JSON.parse(event.data);
      tell({ kind, ...data }, data.page);
    });
  }
}

onconnect = (connected) => {
  const port = connected.ports[0];
  port.onmessage = ({ data }) => {
    if (data.kind === "bye") tabs.delete(port);
    else {
      const known = tabs.get(port);
      tabs.set(port, { page: data.page, seen: Date.now() });
      // A tab that comes to a stream that runs has to be told all of its page once.
      if (!known && [...tabs].some(([other, tab]) => other !== port && tab.page === data.page)) open = "";
    }
    for (const [other, tab] of tabs) if (Date.now() - tab.seen > SILENT_MS) tabs.delete(other);
    listen();
  };
  port.start();
};
