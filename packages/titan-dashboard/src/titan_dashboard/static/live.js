// A page's place on the browser's one event stream: through the shared worker where there is one, else
// by a stream of its own, and where neither can be had by asking again every few seconds.

export function follow(page, on) {
  let isOpen = false, timer = 0;

  function hear(message) {
    if (message.kind === "open") {
      isOpen = true;
      clearInterval(timer);
      timer = 0;
      on.open();
    } else if (message.kind === "fragment") on.fragment(message.name, message.html);
    else if (message.kind === "master") on.master(message.trouble);
    else if (message.kind === "lost" || message.kind === "closed") {
      isOpen = false;
      on.lost();
      if (message.kind === "closed" && !timer) timer = setInterval(poll, 5000), poll();
    }
  }

  async function poll() {
    const answer = await fetch(page, { redirect: "manual" }).catch(() => null);
    if (isOpen || !answer) return;
    if (answer.type === "opaqueredirect" || answer.status === 401) {
      clearInterval(timer);
      on.signedOut();
    } else if (answer.ok) {
      const made = new DOMParser().parseFromString(await answer.text(), "text/html");
      for (const part of made.querySelectorAll("[data-live]")) on.fragment(part.dataset.live, part.innerHTML);
      on.open();
    }
  }

  if (typeof SharedWorker === "function") {
    const worker = new SharedWorker("/static/stream.js", { name: "titan" });
    worker.port.onmessage = ({ data }) => hear(data);
    const here = () => worker.port.postMessage({ kind: "here", page });
    addEventListener("pagehide", () => worker.port.postMessage({ kind: "bye" }));
    addEventListener("pageshow", here);
    setInterval(here, 20_000);
    here();
    return;
  }
  let source;
  const open = () => {
    source = new EventSource(`/events?page=${encodeURIComponent(page)}`);
    source.onopen = () => hear({ kind: "open" });
    source.onerror = () => {
      const closed = source.readyState === EventSource.CLOSED;
      hear({ kind: closed ? "closed" : "lost" });
      if (closed) setTimeout(open, 3000);
    };
    for (const kind of ["fragment", "master"]) source.addEventListener(kind, (event) => hear({ kind, ...JSON.parse(event.data) }));
  };
  open();
}
