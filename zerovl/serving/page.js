"use strict";

const element = (id) => document.getElementById(id);
const state = { about: null, results: [], shown: 0, asked: 0 };

/* What a picture is called in few words: the last part of its path, in a tar its member's. */
function shortName(key) {
  return key.split("/").pop().split(".tar:").pop();
}

function make(tag, text, name) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (name) made.className = name;
  return made;
}

async function answer(url, options) {
  let response;
  try {
    response = await fetch(url, options);
  } catch {
    throw new Error("The server does not answer; is `zerovl serve` still running?");
  }
  const body = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(typeof body.detail === "string" ? body.detail : `The server said ${response.status}.`);
  return body;
}

function say(text, bad = false) {
  element("status").textContent = text;
  element("status").classList.toggle("bad", bad);
}

/* Only the last question counts: an earlier one may be answered later. */
async function ask(url, options, shownQuery) {
  const number = ++state.asked;
  document.body.classList.add("busy");
  showQuery(shownQuery);
  try {
    const found = await answer(url, options);
    if (number === state.asked) show(found);
  } catch (error) {
    if (number !== state.asked) return;
    state.results = [];
    element("found").replaceChildren();
    say(error.message, true);
  } finally {
    if (number === state.asked) document.body.classList.remove("busy");
  }
}

function showQuery(query) {
  const old = element("query").querySelector("img");
  if (old && old.src.startsWith("blob:")) URL.revokeObjectURL(old.src);
  element("query").hidden = !query;
  if (!query) return;
  const image = make("img");
  image.src = query.source;
  image.alt = "";
  element("query").replaceChildren(image, make("span", query.text));
}

function show(found) {
  const count = found.results.length;
  const gone = found.gone ? ` ${found.gone} that are gone since were left out; run zerovl index again.` : "";
  const pictures = state.about ? ` of ${state.about.pictures.toLocaleString("en")} pictures` : " pictures";
  say(`The nearest ${count}${pictures}, by cosine, in ${found.seconds.toFixed(2)} s.${gone}`);
  showTiles(found);
}

function showTiles(found) {
  state.results = found.results;
  element("found").replaceChildren(...found.results.map(tile));
  window.scrollTo({ top: 0 });
}

function tile(result, place) {
  const item = make("li");
  const button = make("button");
  const frame = make("span", undefined, "frame");
  if (result.has_picture) {
    const image = make("img");
    image.loading = "lazy";
    image.alt = "";
    image.addEventListener("error", () => frame.replaceChildren("cannot be shown"));
    image.src = `/thumbnails/${result.id}`;
    frame.append(image);
  } else {
    frame.append("no picture");
  }
  const label = make("span", undefined, "label");
  const name = make("span", shortName(result.key));
  const score = result.score === null ? "" : `, cosine ${result.score.toFixed(3)}`;
  name.title = result.key;
  label.append(name);
  if (score) label.append(make("b", result.score.toFixed(3)));
  button.type = "button";
  button.setAttribute("aria-label", `${place + 1}: ${result.key}${score}`);
  button.append(frame, label);
  button.addEventListener("click", () => view(place));
  item.append(button);
  return item;
}

function view(place) {
  const result = state.results[place];
  if (!result) return;
  state.shown = place;
  element("large").hidden = !result.has_picture;
  if (result.has_picture) element("large").src = `/pictures/${result.id}`;
  element("large").alt = result.key;
  element("name").textContent = result.key;
  const score = result.score === null ? "" : `, cosine ${result.score.toFixed(4)}`;
  element("place").textContent = `${place + 1} of ${state.results.length}${score}`;
  element("previous").disabled = place === 0;
  element("next").disabled = place === state.results.length - 1;
  if (!element("viewer").open) element("viewer").showModal();
}

function searchWords(words) {
  element("words").value = words;
  history.replaceState(null, "", `?q=${encodeURIComponent(words)}`);
  ask(`/api/search?words=${encodeURIComponent(words)}`, {}, null);
}

function searchLike(row, key) {
  history.replaceState(null, "", `?like=${row}`);
  ask(`/api/like/${row}`, {}, { source: `/thumbnails/${row}`, text: key ? `Like ${shortName(key)}` : "Like this picture" });
}

function searchFile(file) {
  element("words").value = "";
  history.replaceState(null, "", location.pathname);
  const query = { source: URL.createObjectURL(file), text: `Like ${file.name || "your picture"}` };
  if (state.about && file.size > state.about.most_upload) {
    showQuery(query);
    element("found").replaceChildren();
    say(`This picture has more than ${state.about.most_upload / 2 ** 20} MiB, which is too much; make it smaller and try again.`, true);
    return;
  }
  ask("/api/search", { method: "POST", body: file }, query);
}

/* The card is Markdown of the model's; it becomes elements with text in them, never HTML. */
function markdown(text) {
  const made = [];
  const lines = text.replace(/^---\n[\s\S]*?\n---\n/, "").split("\n");
  for (let at = 0; at < lines.length; at++) {
    const line = lines[at];
    const take = (test) => {
      const taken = [];
      while (at < lines.length && test(lines[at])) taken.push(lines[at++]);
      at--;
      return taken;
    };
    const heading = line.match(/^(#{1,6}) (.*)/);
    if (heading) made.push(inline(make(`h${Math.min(heading[1].length, 3)}`), heading[2]));
    else if (line.startsWith("```")) {
      at++;
      made.push(make("pre", take((next) => !next.startsWith("```")).join("\n")));
      at++;
    } else if (line.startsWith("|")) made.push(table(take((next) => next.startsWith("|"))));
    else if (/^[-*] /.test(line)) {
      const list = make("ul");
      const items = take((next) => /^([-*] | +\S)/.test(next)).join("\n").split(/^[-*] /m).slice(1);
      list.append(...items.map((item) => inline(make("li"), item.replace(/\s+/g, " ").trim())));
      made.push(list);
    } else if (line.trim()) {
      at++; // the first line is of the paragraph whatever it begins with, or it would be asked for ever
      const more = take((next) => next.trim() && !/^(#{1,6} |\||```|[-*] )/.test(next));
      made.push(inline(make("p"), [line, ...more].join(" ")));
    }
  }
  return made;
}

function inline(parent, text) {
  for (const part of text.split(/(`[^`]+`|\*\*[^*]+\*\*)/)) {
    if (part.startsWith("`") && part.length > 2) parent.append(make("code", part.slice(1, -1)));
    else if (part.startsWith("**") && part.length > 4) parent.append(make("strong", part.slice(2, -2)));
    else parent.append(part.replace(/\[([^\]]+)\]\([^)]*\)/g, "$1"));
  }
  return parent;
}

function table(lines) {
  const whole = make("table");
  lines.filter((line) => !/^\|[\s:|-]+\|$/.test(line)).forEach((line, number) => {
    const row = make("tr");
    for (const cell of line.replace(/^\||\|\s*$/g, "").split("|")) row.append(inline(make(number ? "td" : "th"), cell.trim()));
    whole.append(row);
  });
  const scroll = make("div", undefined, "scroll");
  scroll.append(whole);
  return scroll;
}

async function openCard() {
  const response = await fetch("/card");
  element("card-text").replaceChildren(...markdown(await response.text()));
  element("card").showModal();
}

/* Before anything was asked for: what there is. */
async function showSome() {
  const number = state.asked;
  const found = await answer("/api/some");
  if (number !== state.asked) return;
  const count = state.about.pictures;
  say(found.results.length < count ? `${count.toLocaleString("en")} pictures, some of them:` : `${count} pictures are ready.`);
  showTiles(found);
}

async function start() {
  const about = await answer("/api/about");
  state.about = about;
  document.title = `${about.model} · ZeroVL search`;
  element("model").textContent = about.model;
  element("facts").replaceChildren(...about.facts.map(([name, value]) => {
    const row = make("div");
    row.append(make("dt", name), make("dd", value));
    return row;
  }));
  element("open-card").hidden = !about.card;
  element("report").hidden = !about.report;
  const asked = new URLSearchParams(location.search);
  if (asked.get("q")) searchWords(asked.get("q"));
  else if (asked.get("like")) searchLike(Number(asked.get("like")));
  else await showSome();
}

element("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  searchWords(element("words").value);
});
element("file").addEventListener("change", (event) => {
  const file = event.target.files[0];
  if (file) searchFile(file);
  event.target.value = "";
});
document.addEventListener("paste", (event) => {
  const file = [...event.clipboardData.files].find((one) => one.type.startsWith("image/"));
  if (file) searchFile(file);
});
let inside = 0;
document.addEventListener("dragenter", (event) => {
  event.preventDefault();
  inside++;
  document.body.classList.add("dragging");
});
document.addEventListener("dragleave", () => {
  inside = Math.max(0, inside - 1);
  if (!inside) document.body.classList.remove("dragging");
});
document.addEventListener("dragover", (event) => event.preventDefault());
document.addEventListener("drop", (event) => {
  event.preventDefault();
  inside = 0;
  document.body.classList.remove("dragging");
  const file = event.dataTransfer.files[0];
  if (file) searchFile(file);
});
document.addEventListener("keydown", (event) => {
  if (element("viewer").open) {
    if (event.key === "ArrowLeft") view(state.shown - 1);
    if (event.key === "ArrowRight") view(state.shown + 1);
  } else if (event.key === "/" && document.activeElement.id !== "words" && !element("card").open) {
    event.preventDefault();
    element("words").select();
  }
});
element("previous").addEventListener("click", () => view(state.shown - 1));
element("next").addEventListener("click", () => view(state.shown + 1));
element("close").addEventListener("click", () => element("viewer").close());
element("like").addEventListener("click", () => {
  const result = state.results[state.shown];
  element("viewer").close();
  element("words").value = "";
  searchLike(result.id, result.key);
});
element("open-card").addEventListener("click", () => openCard().catch((error) => say(error.message, true)));
element("close-card").addEventListener("click", () => element("card").close());
start().catch((error) => say(error.message, true));
