// What every page does: times of the reader's zone, keys, copying, and live elements.

const all = (selector, within = document) => [...within.querySelectorAll(selector)];
const language = document.documentElement.lang;

// Times

const format = new Intl.DateTimeFormat(language, {dateStyle: "medium", timeStyle: "medium"});
const relative = new Intl.RelativeTimeFormat(language, {numeric: "auto", style: "short"});
const today = new Intl.DateTimeFormat(language, {timeStyle: "medium"});
const steps = [[60, "second", 1], [3600, "minute", 60], [86400, "hour", 3600], [604800, "day", 86400]];

function showTimes(within, selector = "time[datetime]") {
  for (const element of all(selector, within)) {
    const time = new Date(element.dateTime);
    const seconds = (time - Date.now()) / 1000;
    const isExact = element.closest(".event, .message") !== null;
    const step = isExact ? undefined : steps.find(([limit]) => Math.abs(seconds) < limit);
    element.title = format.format(time);
    element.classList.toggle("relative", step !== undefined);
    element.textContent = step ? relative.format(Math.round(seconds / step[2]), step[1])
      : isExact && Math.abs(seconds) < 86400 ? today.format(time)
      : format.format(time);
  }
}

// In forms, too: what is typed is in the reader's zone, and sent with it.

const local = (time) => new Date(time - time.getTimezoneOffset() * 60000).toISOString().slice(0, 19);

function localizeForms(within) {
  for (const input of all('input[type="datetime-local"]', within)) {
    if (input.value) input.value = local(new Date(`${input.value}Z`));
    const label = input.labels[0].firstChild;
    label.textContent = label.textContent.replace(" (UTC)", "");
    input.form.addEventListener("formdata", (event) => {
      if (input.value) event.formData.set(input.name, new Date(input.value).toISOString());
    });
  }
}

// Keys

let prefix = 0;
const typing = (element) => element.matches("input, select, textarea, [contenteditable]");

function rowOf(element) {
  return element?.closest(".row .main, .event > summary, .message, tbody tr a");
}

function move(step) {
  const rows = all(".row .main, .event > summary, .message");
  const at = rows.indexOf(rowOf(document.activeElement));
  const next = rows[at < 0 ? (step > 0 ? 0 : rows.length - 1) : at + step];
  next?.focus();
  next?.scrollIntoView({block: "nearest"});
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "Escape" && typing(event.target)) return event.target.blur();
  if (typing(event.target) || document.querySelector("dialog[open]")) return;
  const follows = prefix && Date.now() - prefix < 1500;
  prefix = 0;
  if (follows) {
    const link = document.querySelector(`.side a[data-key="${CSS.escape(event.key)}"]`);
    if (link) { event.preventDefault(); link.click(); }
    return;
  }
  switch (event.key) {
    case "/": (document.querySelector("[data-search]") ?? document.getElementById("find"))?.select(); break;
    case "j": move(1); break;
    case "k": move(-1); break;
    case "g": prefix = Date.now(); break;
    case "?": document.getElementById("keys").showModal(); break;
    default: return;
  }
  event.preventDefault();
});

// Copying, sliders

function announce(text) {
  document.getElementById("announce").textContent = text;
}

document.addEventListener("click", async (event) => {
  const button = event.target.closest("button.copy");
  if (!button) return;
  event.preventDefault();
  const text = button.dataset.copy ?? button.closest(".sub").nextElementSibling.textContent;
  await navigator.clipboard.writeText(text);
  button.textContent = "✓";
  announce("✓");
});

document.addEventListener("input", (event) => {
  if (!("slider" in (event.target.dataset ?? {}))) return;
  event.target.form.querySelector(`output[for="${event.target.id}"]`).textContent = `${event.target.value} / ${event.target.max}`;
});

// Live elements: what a hidden tab shows does not change, and costs nothing

const shown = () => document.visibilityState === "visible";
let refreshing = [];

// What is unfolded, or asked, stays until it is closed.
const isOpen = (element) => element.querySelector("details[open], :popover-open") !== null;

function refresh(element) {
  if (!isOpen(element)) window.htmx.trigger(element, "refresh");
}

const continued = (element) =>
  element.getAttribute("sse-connect").replace(/after=\d+/, `after=${document.getElementById("seen").value}`);

function startLive() {
  for (const template of all("template[data-live]")) {
    const seen = document.getElementById("seen");
    seen.before(template.content.cloneNode(true));
    const element = seen.previousElementSibling;
    element.setAttribute("sse-connect", continued(element));
    window.htmx.process(element);
  }
  refreshing = all("[data-refresh]").map((element) => setInterval(() => refresh(element), 1000 * element.dataset.refresh));
}

function stopLive() {
  refreshing.forEach(clearInterval);
  all("#live").forEach((element) => window.htmx.remove(element));
}

let isPaused = false;

function restartLive() {
  stopLive();
  if (shown() && !isPaused) startLive();
}

// The live log: the last position that came is where it goes on after a pause, a hidden tab or a lost connection

const MAX_ROWS = 2000;
const pause = document.getElementById("pause");
pause?.addEventListener("click", () => {
  isPaused = !isPaused;
  pause.textContent = isPaused ? pause.dataset.paused : pause.dataset.running;
  document.getElementById("live-state").classList.toggle("paused", isPaused);
  restartLive();
});
document.addEventListener("keydown", (event) => {
  if (event.key === " " && pause && event.target === document.body) { event.preventDefault(); pause.click(); }
});
document.addEventListener("htmx:sseMessage", (event) => {
  if (event.detail.type !== "row") return;
  const element = document.getElementById("live");
  document.getElementById("seen").value = event.detail.lastEventId;
  element.setAttribute("sse-connect", continued(element));
  document.getElementById("none")?.remove();
  const rows = document.getElementById("stream");
  for (let count = rows.childElementCount; count > MAX_ROWS; count--) rows.lastElementChild.remove();
});

document.addEventListener("visibilitychange", () => {
  restartLive();
  if (shown()) all("[data-refresh]").forEach(refresh);
});
window.addEventListener("pagehide", stopLive);

let follows = false;
document.addEventListener("htmx:beforeSwap", (event) => {
  if ("refresh" in event.detail.target.dataset && isOpen(event.detail.target)) event.preventDefault();
  if (event.detail.target.id === "live")
    follows = window.innerHeight + window.scrollY > document.documentElement.scrollHeight - 120;
});
document.addEventListener("htmx:afterSwap", (event) => {
  if (event.detail.target?.id === "live" && follows) window.scrollTo(0, document.documentElement.scrollHeight);
  if (event.detail.target?.id === "state" || event.detail.target?.id === "results") restartLive();
});
document.addEventListener("htmx:load", (event) => showTimes(event.detail.elt));

function openTarget() {
  const target = document.getElementById(location.hash.slice(1));
  if (target?.matches("details")) target.open = true;
}

showTimes(document);
localizeForms(document);
openTarget();
window.addEventListener("hashchange", openTarget);
if (document.querySelector(".chat template[data-live]") && !location.hash && !location.search) {
  const toEnd = () => document.querySelector(".chat").scrollIntoView({block: "end"});
  toEnd();
  requestAnimationFrame(toEnd);  // once the last messages have their heights
}
restartLive();
setInterval(() => { if (shown()) showTimes(document, "time.relative"); }, 30000);
