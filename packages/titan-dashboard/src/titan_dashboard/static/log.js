// The viewer of logs: every line of one job, or of a whole run with job and worker before each. Lines are
// fetched by position, so that nothing is lost or shown twice; only those in view are in the document.
import { plain, spans } from "./ansi.js";

const LINE = 20; // height of a line, as in the stylesheet
const LINES_MAX = 500_000;
const TAIL = 200_000;
const AT_ONCE = 4;
const ERROR = /\b(error|exception|traceback|fatal|panic|failed)\b/i;
const NOTICE = 0, STDERR = 2;

const box = document.querySelector("[data-log]");
if (box) start();

function start() {
  const screen = box.querySelector("[data-screen]");
  const whole = "whole" in box.dataset;
  const find = box.querySelector("[data-find]"), count = box.querySelector("[data-count]");
  const button = (name) => box.querySelector(`[data-do="${name}"]`);
  for (const one of box.querySelectorAll(".for-script")) one.hidden = false;

  const inner = document.createElement("div");
  inner.className = "inner";
  const pill = document.createElement("button");
  pill.className = "pill";
  pill.hidden = true;
  screen.replaceChildren(inner);
  box.append(pill);

  const sources = new Map(); // job.attempt → {job, attempt, worker, at, open, known}
  let lines = []; // {source, stream, ms, text, cut}
  let hits = null; // numbers of lines that match, or null without a search
  let pattern = null, only = false, times = false, following = true, current = -1, unseen = 0, first = 0, waiting = 0;
  let queue = [], busy = 0, isLoaded = false, drawing = 0;

  // -- reading -----------------------------------------------------------------------------------
  function hear() {
    const text = document.querySelector("[data-marks]")?.textContent;
    if (!text) return;
    for (const [job, attempt, worker, mark] of JSON.parse(text)) {
      const key = `${job}.${attempt}`;
      let source = sources.get(key);
      if (!source) {
        source = { job, attempt, worker, at: 0, open: [], known: null, begun: false };
        sources.set(key, source);
        if (!whole && sources.size > 1) push(source, [[NOTICE, 0, `── attempt ${attempt} on ${worker} ──`]]);
      }
      if (source.known === mark) continue;
      source.known = mark;
      if (!queue.includes(source)) queue.push(source);
    }
    work();
    if (!sources.size) draw();
  }

  function work() {
    while (busy < AT_ONCE && queue.length) {
      busy++;
      load(queue.shift()).finally(() => {
        busy--;
        if (!busy && !queue.length && !isLoaded) settle();
        work();
      });
    }
  }

  async function load(source) {
    for (let more = true; more; ) {
      const query = new URLSearchParams({ attempt: source.attempt, stream: box.dataset.stream, at: source.at });
      if (!source.at) query.set("tail", TAIL);
      let found;
      try {
        const answer = await fetch(`/runs/${box.dataset.run}/jobs/${encodeURIComponent(source.job)}/log.json?${query}`);
        if (!answer.ok) {
          if (answer.status !== 404) source.known = null; // the next word of it tries again
          return;
        }
        found = await answer.json();
      } catch {
        source.known = null;
        return;
      }
      source.at = found.at;
      source.open = found.open;
      push(source, found.lines);
      more = found.more;
    }
  }

  // Of several logs the past is told in the order of time; from then on as it comes.
  function settle() {
    isLoaded = true;
    if (whole) {
      lines = lines.map((line, n) => [line, n]).sort((a, b) => a[0].ms - b[0].ms || a[1] - b[1]).map(([line]) => line);
      search();
    }
    draw();
    const wanted = /^#L(\d+)$/.exec(location.hash);
    if (wanted) go(Number(wanted[1]) - 1);
  }

  function push(source, made) {
    for (const [stream, ms, text, cut] of made) {
      const line = { source, stream, ms, text, cut: cut ?? 0 };
      if (pattern && pattern.test(plain(text))) hits.push(first + lines.length);
      lines.push(line);
    }
    if (lines.length > LINES_MAX) {
      const gone = lines.length - LINES_MAX;
      lines.splice(0, gone);
      first += gone;
      if (hits) hits = hits.filter((n) => n >= first);
    }
    if (!following) unseen += made.length;
    draw();
  }

  // -- showing -----------------------------------------------------------------------------------
  const shown = () => (only && hits ? hits.length : lines.length + open().length);
  const open = () => [...sources.values()].flatMap((source) => source.open.map(([stream, ms, text, cut]) => ({ source, stream, ms, text, cut: cut ?? 0 })));

  function draw() {
    if (!drawing) drawing = requestAnimationFrame(render);
  }

  function render() {
    drawing = 0;
    const pending = open();
    const total = only && hits ? hits.length : lines.length + pending.length;
    inner.style.height = `${Math.max(1, total) * LINE}px`;
    if (following && isAtRest) {
      isAtRest = false;
      screen.scrollTop = screen.scrollHeight;
      isAtRest = true;
    }
    const from = Math.max(0, Math.floor(screen.scrollTop / LINE) - 10);
    const to = Math.min(total, from + Math.ceil(screen.clientHeight / LINE) + 20);
    const rows = [];
    for (let row = from; row < to; row++) {
      const n = only && hits ? hits[row] - first : row;
      const line = n < lines.length ? lines[n] : pending[n - lines.length];
      if (line) rows.push(element(line, first + n, row));
    }
    if (!total) {
      const empty = document.createElement("div");
      empty.className = "line of";
      empty.textContent = only ? "No line matches." : sources.size ? "Nothing has been printed yet." : "Nothing has run yet.";
      rows.push(empty);
    }
    inner.replaceChildren(...rows);
    pill.hidden = following || !unseen;
    pill.textContent = `${unseen} new line${unseen === 1 ? "" : "s"} ↓`;
    box.dataset.lines = lines.length;
  }

  function element(line, n, row) {
    const div = document.createElement("div");
    div.className = `line${line.stream === STDERR ? " is-err" : ""}${line.stream === NOTICE ? " is-notice" : ""}${n === current ? " is-current" : ""}`;
    div.style.top = `${row * LINE}px`;
    const number = document.createElement("a");
    number.className = "no";
    number.href = `#L${n + 1}`;
    number.tabIndex = -1;
    number.textContent = n + 1;
    div.append(number);
    if (times) add(div, "at", line.ms ? new Date(line.ms).toISOString().slice(11, 23) : "");
    if (whole) add(div, "from", `${line.source.job} ${line.source.worker}`).title = `attempt ${line.source.attempt}`;
    const text = document.createElement("span");
    text.className = "text";
    for (const [piece, classes, colour] of spans(line.text)) lit(text, piece, classes, colour);
    if (line.cut) add(text, "of", ` … ${line.cut} more characters: download the log`);
    div.append(text);
    return div;
  }

  function add(parent, name, text) {
    const span = document.createElement("span");
    span.className = name;
    span.textContent = text;
    parent.append(span);
    return span;
  }

  function lit(parent, piece, classes, colour) {
    const span = document.createElement("span");
    if (classes) span.className = classes;
    if (colour) span.style.color = colour;
    if (!pattern) span.textContent = piece;
    else {
      let from = 0;
      for (const match of piece.matchAll(new RegExp(pattern.source, pattern.flags + "g"))) {
        if (!match[0]) continue;
        span.append(piece.slice(from, match.index));
        const mark = document.createElement("mark");
        mark.textContent = match[0];
        span.append(mark);
        from = match.index + match[0].length;
      }
      span.append(piece.slice(from));
    }
    parent.append(span);
  }

  // -- finding -----------------------------------------------------------------------------------
  function search() {
    clearTimeout(waiting);
    waiting = 0;
    const text = find.value;
    pattern = null;
    hits = null;
    find.removeAttribute("aria-invalid");
    if (text) {
      const written = /^\/(.+)\/(i?)$/.exec(text);
      try {
        pattern = written ? new RegExp(written[1], written[2]) : new RegExp(text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"), "i");
        hits = [];
        lines.forEach((line, n) => pattern.test(plain(line.text)) && hits.push(first + n));
      } catch {
        find.setAttribute("aria-invalid", "true");
      }
    }
    tell();
    draw();
  }

  function tell() {
    const at = hits ? hits.indexOf(current) : -1;
    count.textContent = hits ? (at >= 0 ? `${at + 1} of ${hits.length}` : `${hits.length} found`) : "";
  }

  function go(n) {
    const row = only && hits ? hits.indexOf(n) : n - first;
    if (row < 0) return;
    follow(false);
    current = n;
    screen.scrollTop = Math.max(0, row * LINE - screen.clientHeight / 2);
    tell();
    draw();
  }

  function step(list, way) {
    if (!list?.length) return;
    const from = current >= 0 ? current : first + Math.floor(screen.scrollTop / LINE) - (way > 0 ? 1 : -1);
    const next = way > 0 ? list.find((n) => n > from) ?? list[0] : list.findLast((n) => n < from) ?? list.at(-1);
    go(next);
  }

  function follow(on) {
    following = on;
    button("follow").setAttribute("aria-pressed", String(on));
    if (on) unseen = 0;
    draw();
  }

  const toggle = (name, on) => (button(name).setAttribute("aria-pressed", String(on)), draw(), on);
  find.addEventListener("input", () => (clearTimeout(waiting), (waiting = setTimeout(search, 120))));
  find.addEventListener("keydown", (event) => {
    if (event.key !== "Enter") return;
    event.preventDefault();
    step(found(), event.shiftKey ? -1 : 1);
  });
  const found = () => {
    if (waiting) search(); // what has been typed counts, also if it was typed just now
    return hits;
  };
  const does = {
    next: () => step(found(), 1),
    prev: () => step(found(), -1),
    only: () => (only = toggle("only", !only)),
    times: () => (times = toggle("times", !times)),
    follow: () => follow(!following),
    error: () => step(lines.flatMap((line, n) => (ERROR.test(plain(line.text)) ? [first + n] : [])), 1),
  };
  for (const [name, act] of Object.entries(does)) button(name).addEventListener("click", act);
  pill.addEventListener("click", () => follow(true));

  let isAtRest = true;
  screen.addEventListener("scroll", () => {
    const atEnd = screen.scrollTop + screen.clientHeight >= screen.scrollHeight - LINE;
    if (isAtRest && atEnd !== following && (atEnd || lastTop > screen.scrollTop)) follow(atEnd);
    lastTop = screen.scrollTop;
    draw();
  });
  let lastTop = 0;
  screen.addEventListener("keydown", (event) => {
    if (event.key === "G") follow(true);
    else if (event.key === "Home") (follow(false), (screen.scrollTop = 0));
  });
  addEventListener("resize", draw);
  addEventListener("hashchange", () => {
    const wanted = /^#L(\d+)$/.exec(location.hash);
    if (wanted) go(Number(wanted[1]) - 1);
  });
  document.addEventListener("titan:changed", (event) => event.detail.part === "log_marks" && hear());
  hear();
  if (!queue.length && !busy) settle();
}
