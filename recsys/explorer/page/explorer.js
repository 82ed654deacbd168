"use strict";
// What is shown is kept in the address, so that it can be sent to somebody.

const $ = (id) => document.getElementById(id);
const state = { user: null, history: null, k: 10, where: "", stage: "answer", beside: false, why: null };
let about = [], somebody = null, lists = [], asked = 0;

// -- asking ------------------------------------------------------------------------------------

async function ask(path, body) {
  const token = sessionStorage.getItem("token");
  const headers = { ...(body && { "Content-Type": "application/json" }), ...(token && { Authorization: `Bearer ${token}` }) };
  const answer = await fetch(path, body ? { method: "POST", headers, body: JSON.stringify(body) } : { headers });
  if (answer.status === 401) {
    await login();
    return ask(path, body);
  }
  const told = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(message(told) || `the server answers ${answer.status}`);
  return told;
}

function message(told) {
  const { detail, error } = told;
  if (typeof detail === "string") return detail;
  if (Array.isArray(detail)) return detail.map((each) => each.msg).join("; ");
  return typeof error === "string" ? error : error?.message;
}

function login() {
  return new Promise((resolve) => {
    $("login").addEventListener("close", () => {
      sessionStorage.setItem("token", $("token").value);
      resolve();
    }, { once: true });
    if (!$("login").open) $("login").showModal();
  });
}

const who = (bundle) => ({ bundle, k: state.k, ...(state.user !== null && { user: state.user }), ...(state.history && { history: state.history }), ...(state.where && { where: state.where }) });

// -- the address -------------------------------------------------------------------------------

function toAddress() {
  const fields = new URLSearchParams();
  if (state.user !== null) fields.set("user", state.user);
  if (state.history) fields.set("history", state.history.join(","));
  if (state.k !== 10) fields.set("k", state.k);
  if (state.where) fields.set("where", state.where);
  if (state.stage !== "answer") fields.set("stage", state.stage);
  if (state.beside) fields.set("beside", "1");
  if (state.why !== null) fields.set("why", state.why);
  if (location.hash.slice(1) !== fields.toString()) history.pushState(null, "", "#" + fields);
}

function fromAddress() {
  const fields = new URLSearchParams(location.hash.slice(1));
  state.user = fields.get("user");
  state.history = fields.has("history") ? fields.get("history").split(",").filter(Boolean) : null;
  state.k = Math.min(100, Math.max(1, Number(fields.get("k")) || 10));
  state.where = fields.get("where") ?? "";
  state.stage = fields.get("stage") ?? "answer";
  state.beside = fields.get("beside") === "1" && about.length > 1;
  state.why = fields.get("why");
  if (![...$("k").options].some((each) => Number(each.value) === state.k)) $("k").add(new Option(state.k));
  $("k").value = state.k;
  $("where").value = state.where;
}

// -- making elements: everything that data says is text, never markup ---------------------------

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) made.setAttribute(name, value);
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}

const number = (value) => {
  const size = Math.abs(value);
  if (Number.isInteger(value)) return value.toLocaleString("en");
  if (size < 0.001 || size >= 1e6) return value.toExponential(2);
  const digits = size < 1 ? 4 : size < 100 ? 2 : 1;
  return value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
};
const name = (card) => card.title ?? `item ${card.item}`;
const facts = (card) => Object.entries(card.facts ?? {}).map(([key, value]) => `${key} ${value}`);

function picture(card) {
  if (!card.picture) return element("span");
  return element("img", { class: "picture", src: card.picture, alt: "", loading: "lazy", referrerpolicy: "no-referrer", onerror: (event) => event.target.remove() });
}

function row(card, rank, moved) {
  const below = [...(card.title ? [`id ${card.item}`] : []), ...facts(card)].join(" · ");
  return element("li", { class: "card", role: "option", tabindex: "-1", "data-item": card.item, "aria-selected": "false",
    onclick: () => showWhy(card.item) },
    element("span", { class: "rank" }, String(rank)), picture(card),
    element("div", {}, element("div", { class: "title" }, name(card)),
      element("div", { class: "facts" },
        card.fallback && element("span", { class: "tag" }, "fallback"),
        ...(card.origin && !card.fallback ? String(card.origin).split(",").map((each) => element("span", { class: "tag" }, each.trim())) : []),
        below)),
    element("div", { class: "score" }, card.price ? element("div", {}, card.price.toFixed(2)) : null,
      element("small", { title: "score" }, card.score === undefined ? "" : number(card.score)), moved ?? null));
}

const list = (cards, label, moves) => element("ol", { class: "cards", role: "listbox", "aria-label": label, tabindex: "0" },
  cards.map((card, place) => row(card, place + 1, moves?.(card, place))));

const note = (text, fault) => element("p", { class: fault ? "note fault" : "note", role: fault ? "alert" : "note" }, text);

// -- who asks ----------------------------------------------------------------------------------

function showSomebody() {
  const known = Object.entries(somebody?.features ?? {});
  $("features").replaceChildren(...known.flatMap(([key, value]) => [element("dt", {}, key), element("dd", {}, value)]));
  const events = somebody?.history ?? [];
  const shown = $("history").classList.contains("whole") ? events.length : 30;
  $("events").textContent = events.length ? `${events.length.toLocaleString("en")}, newest first` : "empty";
  $("whole").hidden = events.length <= shown;
  const rows = events.map((card, place) => element("li", { class: "card", tabindex: "0", "data-place": place },
    picture(card), element("span", { class: "title" }, name(card)),
    element("button", { type: "button", "aria-label": `Take ${name(card)} out of the history`, onclick: () => takeOut(place) }, "×")));
  $("history").replaceChildren(...rows.reverse().slice(0, shown));
}

const ids = () => (somebody?.history ?? []).map((card) => card.item);
const takeOut = (place) => change({ history: ids().filter((_, each) => each !== place) });
const putIn = (item) => change({ history: [...ids(), item] });

// -- what is found -----------------------------------------------------------------------------

function stages(page) {
  const made = { answer: "Answer" };
  for (const stage of page?.stages ?? []) made[stage.name] = `${stage.name} ${stage.found}`;
  if (page?.interests?.length) made.interests = `Interests ${page.interests.length}`;
  return made;
}

function showFound() {
  const made = stages(lists[0]);
  if (!(state.stage in made)) state.stage = "answer";
  $("stages").replaceChildren(...(Object.keys(made).length > 1 ? Object.entries(made).map(([key, text]) =>
    element("button", { type: "button", role: "tab", "aria-selected": String(key === state.stage), onclick: () => change({ stage: key }, false) }, text)) : []));
  if (!lists.length) return;
  const columns = lists.map((page, place) => column(page, place));
  $("answer").replaceChildren(element("div", { class: "columns" }, columns.flat()));
}

function column(page, place) {
  const heading = (text, told) => element("h3", {}, text, " ", element("span", { class: "muted" }, told));
  const of = lists.length > 1 ? `${about[place].run || about[place].model}: ` : "";
  if (state.stage === "interests") {
    return page.interests.map((interest, at) => element("div", {}, heading(`${of}Interest ${at + 1}`, `weight ${number(interest.weight)}`), list(interest.items, `Interest ${at + 1}`)));
  }
  const stage = page.stages.find((each) => each.name === state.stage);
  const cards = stage ? stage.items : page.answer;
  const other = lists.length > 1 ? lists[1 - place] : null;
  const before = other && (stage ? other.stages.find((each) => each.name === state.stage)?.items : other.answer);
  const told = stage ? `${stage.found} items, ${number(stage.milliseconds)} ms` : `${number(page.milliseconds)} ms`;
  const empty = !cards.length && note("Nothing was found.");
  return element("div", {}, heading(of + (stage ? stage.name : "Answer"), told), empty || list(cards, of || "Answer", place === 1 && before ? (card, at) => moved(card, at, before) : null),
    place === 1 && before ? gone(cards, before) : null);
}

function moved(card, place, before) {
  const was = before.findIndex((each) => each.item === card.item);
  if (was < 0) return element("div", { class: "moved up" }, "new");
  if (was === place) return element("div", { class: "moved muted" }, "=");
  return element("div", { class: `moved ${was > place ? "up" : "down"}` }, `${was > place ? "▲" : "▼"} ${Math.abs(was - place)}`);
}

function gone(cards, before) {
  const left = before.filter((card) => !cards.some((each) => each.item === card.item));
  return left.length ? element("p", { class: "muted" }, `Gone: ${left.map(name).join("; ")}`) : null;
}

// -- why ---------------------------------------------------------------------------------------

async function showWhy(item) {
  state.why = item;
  toAddress();
  document.querySelector("main").classList.toggle("asked", item !== null);
  $("why").hidden = item === null;
  for (const each of document.querySelectorAll(".card[data-item]")) each.classList.toggle("chosen", each.dataset.item === item);
  if (item === null) return;
  const bundles = lists.map((_, place) => place);
  try {
    const pages = await Promise.all(bundles.map((bundle) => ask("/explorer/why", { ...who(bundle), item })));
    if (state.why !== item) return;
    $("reasons").replaceChildren(...pages.flatMap(reasons));
    for (const place of bundles.filter((each) => about[each].words)) showWords(item, place);
  } catch (error) {
    $("reasons").replaceChildren(note(error.message, true));
  }
}

async function showWords(item, place) {
  const of = lists.length > 1 ? ` (${about[place].run || about[place].model})` : "";
  const box = element("section", { class: "words" }, element("h3", {}, "Words" + of), element("p", { class: "muted" }, "reading…"));
  $("reasons").append(box);
  const told = await ask("/explorer/words", { ...who(place), item }).then(words, (error) => [element("p", { class: "muted" }, sentence(error.message))]);
  box.replaceChildren(box.firstChild, ...told);
}

function words(page) {
  const sides = [["Of the history", page.history], ["Of the item", page.item]];
  return [element("p", { class: "muted" }, `The words of either side add up to the score of ${page.generator}, ${number(page.score)}, with what there is without them.`),
    ...sides.flatMap(([heading, side]) => {
      const every = side.items.flatMap((each) => each.words);
      const most = Math.max(...every.map((each) => Math.abs(each.contribution)), 1e-9);
      const largest = [...every].sort((one, other) => Math.abs(other.contribution) - Math.abs(one.contribution)).slice(0, 6);
      return [element("h4", {}, heading),
        ...side.items.map((each) => element("p", { class: "said", title: name(each) }, each.words.flatMap((word) => [shaded(word, most), " "]))),
        bars(largest.map(({ word, contribution }) => ({ concept: word, contribution }))),
        element("p", { class: "muted" }, rest(page.score, side, largest))];
    })];
}

function rest(score, side, largest) {
  const others = largest.reduce((left, { contribution }) => left - contribution, score - side.base);
  return `All other words ${number(others)}, without any word ${number(side.base)}.`;
}

// How much a word adds is told by one of four shades, and which way by the colour.
function shaded({ word, contribution }, most) {
  const level = Math.round((4 * Math.abs(contribution)) / most);
  return element("mark", { class: `${contribution < 0 ? "against" : "for"} shade${level}`, title: (contribution > 0 ? "+" : "") + number(contribution) }, word);
}

function reasons(page, place) {
  const heading = lists.length > 1 ? element("h3", {}, about[place].run || about[place].model) : null;
  const parts = [place === 0 ? element("p", { class: "title" }, name(page.card)) : null, heading, note(sentence(page.told))];
  if (page.opinions.length) {
    parts.push(element("table", {}, element("thead", {}, element("tr", {}, ["stage", "rank", "of", "score", ""].map((text) => element("th", { scope: "col" }, text)))),
      element("tbody", {}, page.opinions.map((opinion) => element("tr", {}, element("td", {}, opinion.stage), element("td", {}, opinion.rank ?? "–"), element("td", {}, opinion.of.toLocaleString("en")),
        element("td", {}, opinion.score === null ? "–" : number(opinion.score)), element("td", { class: opinion.kept ? "up" : "down" }, opinion.kept ? "kept" : "lost"))))));
  }
  if (page.concepts.length) parts.push(element("h3", {}, "Concepts"), bars(page.concepts));
  if (page.alike.length) {
    parts.push(element("h3", {}, "Most alike in the history"), element("ol", { class: "cards small" }, page.alike.map((card) =>
      element("li", { class: "card" }, picture(card), element("span", { class: "title" }, name(card)), element("small", { title: "cosine of their vectors" }, number(card.cosine))))));
  }
  return parts.filter(Boolean);
}

const sentence = (text) => text[0].toUpperCase() + text.slice(1) + ".";

function bars(concepts) {
  const most = Math.max(...concepts.map((each) => Math.abs(each.contribution)), 1e-9);
  const made = (tag, attributes) => {
    const shape = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [key, value] of Object.entries(attributes)) shape.setAttribute(key, value);
    return shape;
  };
  return element("div", {}, concepts.map(({ concept, contribution }) => {
    const picture = made("svg", { viewBox: "0 0 200 10", preserveAspectRatio: "none", "aria-hidden": "true" });
    const length = (100 * Math.abs(contribution)) / most;
    picture.append(made("rect", { x: contribution < 0 ? 100 - length : 100, y: 1, width: length, height: 8, class: contribution < 0 ? "down" : "" }), made("line", { x1: 100, x2: 100, y1: 0, y2: 10 }));
    return element("div", { class: "bar" }, element("span", {}, concept), picture, element("span", {}, number(contribution)));
  }));
}

// -- boxes to search in ------------------------------------------------------------------------

function search(box, options, fetched, text, chosen) {
  let last = 0, wait;
  const close = () => { options.hidden = true; box.setAttribute("aria-expanded", "false"); };
  const mark = (at) => [...options.children].forEach((each, place) => each.setAttribute("aria-selected", String(place === at)));
  const marked = () => [...options.children].findIndex((each) => each.getAttribute("aria-selected") === "true");
  const choose = (value) => { close(); box.value = ""; box.blur(); chosen(value); };
  const look = async () => {
    const mine = ++last;
    try {
      const values = await fetched(box.value);
      if (mine !== last || document.activeElement !== box) return;
      options.replaceChildren(...(values.length ? values.map((value) => element("li", { role: "option", onmousedown: (event) => { event.preventDefault(); choose(value); } }, text(value)))
        : [element("li", { class: "muted" }, "none")]));
      options.values = values;
      mark(0);
      options.hidden = false;
      box.setAttribute("aria-expanded", "true");
    } catch (error) { fault(error); }
  };
  box.addEventListener("focus", look);
  box.addEventListener("input", () => { clearTimeout(wait); wait = setTimeout(look, 120); });
  box.addEventListener("blur", close);
  box.addEventListener("keydown", (event) => {
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      const count = options.children.length;
      mark((marked() + (event.key === "ArrowDown" ? 1 : count - 1)) % count);
      options.children[marked()]?.scrollIntoView({ block: "nearest" });
      event.preventDefault();
    } else if (event.key === "Enter") {
      const value = options.values?.[marked()];
      if (value !== undefined && !options.hidden) choose(value);
    } else if (event.key === "Escape") { close(); box.blur(); }
    event.stopPropagation();
  });
}

const findItems = (text) => ask(`/explorer/items?q=${encodeURIComponent(text)}`);
search($("find-user"), $("users"), (text) => ask(`/explorer/users?q=${encodeURIComponent(text)}`), (user) => user, (user) => change({ user, history: null, why: null }));
search($("find-item"), $("items"), findItems, name, (card) => putIn(card.item));
search($("find-other"), $("others"), findItems, name, (card) => showWhy(card.item));

// -- changes -----------------------------------------------------------------------------------

const fault = (error) => $("answer").replaceChildren(note(error.message, true));

function change(what, anew = true) {
  Object.assign(state, what);
  toAddress();
  return anew ? show() : showFound();
}

async function show() {
  const mine = ++asked;
  $("compare").setAttribute("aria-pressed", String(state.beside));
  if (state.user === null && !state.history) {
    [somebody, lists] = [null, []];
    showSomebody();
    $("stages").replaceChildren();
    const users = await ask("/explorer/users?most=6").catch(() => []);
    if (mine !== asked) return;
    $("answer").replaceChildren(note("Choose a user, or build a history from items. Some users to begin with:"),
      element("div", { class: "tools" }, users.map((user) => element("button", { type: "button", onclick: () => change({ user }) }, user))));
    return;
  }
  const bundles = state.beside ? [0, 1] : [0];
  try {
    const [of, ...pages] = await Promise.all([ask("/explorer/somebody", who(0)),
      ...bundles.map((bundle) => ask("/explorer/lists", who(bundle)))]);
    if (mine !== asked) return;
    [somebody, lists] = [of, pages];
    showSomebody();
    showFound();
    await showWhy(state.why);
  } catch (error) {
    if (mine === asked) fault(error);
  }
}

$("k").addEventListener("change", () => change({ k: Number($("k").value) }));
$("where").addEventListener("change", () => change({ where: $("where").value.trim() }));
$("compare").addEventListener("click", () => change({ beside: !state.beside }));
$("close").addEventListener("click", () => showWhy(null));
$("keys").addEventListener("click", () => $("help").showModal());
$("whole").addEventListener("click", () => { $("history").classList.add("whole"); showSomebody(); });
$("theme").addEventListener("click", () => {
  const dark = document.documentElement.dataset.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
  document.documentElement.dataset.theme = dark === "dark" ? "light" : "dark";
});
addEventListener("popstate", () => { fromAddress(); show(); });

addEventListener("keydown", (event) => {
  const typing = /INPUT|SELECT|TEXTAREA/.test(event.target.tagName);
  if (event.key === "Escape" && !$("why").hidden) return showWhy(null);
  if (typing || event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  const cards = [...$("answer").querySelectorAll(".card")];
  const at = cards.indexOf(document.activeElement);
  const tabs = [...$("stages").children];
  const done = {
    "/": () => $("find-user").focus(),
    a: () => $("find-item").focus(),
    c: () => about.length > 1 && $("compare").click(),
    t: () => $("theme").click(),
    "?": () => $("keys").click(),
    ArrowDown: () => cards[Math.min(at + 1, cards.length - 1)]?.focus(),
    ArrowUp: () => cards[Math.max(at - 1, 0)]?.focus(),
    ArrowRight: () => tabs[tabs.findIndex((tab) => tab.ariaSelected === "true") + 1]?.click(),
    ArrowLeft: () => tabs[tabs.findIndex((tab) => tab.ariaSelected === "true") - 1]?.click(),
    Enter: () => at >= 0 && showWhy(cards[at].dataset.item),
    "+": () => at >= 0 && putIn(cards[at].dataset.item),
    Delete: () => document.activeElement?.dataset.place !== undefined && takeOut(Number(document.activeElement.dataset.place)),
  }[event.key];
  if (!done || (event.key === "Enter" && at < 0)) return;
  event.preventDefault();
  done();
});

(async () => {
  try {
    about = await ask("/explorer/about");
    const [first] = about;
    document.title = `Explorer: ${first.run || first.model}`;
    $("about").textContent = about.map((each) => `${each.run || each.model} (${each.cascade ? "cascade of " + each.generators.join(", ") : each.model}, ${each.items.toLocaleString("en")} items, ${each.users.toLocaleString("en")} users)`).join(" beside ");
    $("compare").hidden = about.length < 2;
    if (first.example) $("where").placeholder = `Only items that fit, such as: ${first.example}`;
    else $("where-line").hidden = true;
    fromAddress();
    await show();
  } catch (error) { fault(error); }
})();
