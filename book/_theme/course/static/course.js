// All the behavior of the book's pages. Every page is complete without it.
"use strict";

const root = document.documentElement;
const remember = (key, value) => {
  try { localStorage.setItem(key, value); } catch (error) { /* private mode: not remembered */ }
};

// Light and dark ------------------------------------------------------------------------------
const modeButton = document.querySelector(".mode-button");
const showMode = (mode) => {
  root.dataset.mode = mode;
  modeButton.setAttribute("aria-pressed", String(mode === "dark"));
  document.querySelector("meta[name=theme-color]").content = mode === "dark" ? "#16181d" : "#ffffff";
};
showMode(root.dataset.mode);
modeButton.addEventListener("click", () => {
  const mode = root.dataset.mode === "dark" ? "light" : "dark";
  remember("mode", mode);
  showMode(mode);
});

// The contents as a drawer on small screens -----------------------------------------------------
const contents = document.getElementById("contents");
const contentsButton = document.querySelector(".contents-button");
const openContents = (open) => {
  root.toggleAttribute("data-contents-open", open);
  contentsButton.setAttribute("aria-expanded", String(open));
  for (const part of document.querySelectorAll("main, .aside")) part.inert = open;
  if (open) (contents.querySelector("[aria-current], a.current, a") || contents).focus();
};
contentsButton.addEventListener("click", () => openContents(!root.hasAttribute("data-contents-open")));
contents.addEventListener("click", (event) => { if (event.target.closest("a")) openContents(false); });
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || !root.hasAttribute("data-contents-open")) return;
  openContents(false);
  contentsButton.focus();
});
matchMedia("(min-width: 60rem)").addEventListener("change", () => openContents(false));

// PyTorch and TensorFlow tabs: one choice for the whole book --------------------------------------
const showFramework = (framework) => {
  root.dataset.framework = framework;
  for (const tab of document.querySelectorAll("[role=tab]")) {
    const chosen = tab.dataset.framework === framework;
    tab.setAttribute("aria-selected", String(chosen));
    tab.tabIndex = chosen ? 0 : -1;
  }
};
const chooseFramework = (tab) => {
  // Tabs above this one may change height too: keep the pressed tab where the reader sees it.
  const before = tab.getBoundingClientRect().top;
  remember("framework", tab.dataset.framework);
  showFramework(tab.dataset.framework);
  window.scrollBy({ top: tab.getBoundingClientRect().top - before, behavior: "instant" });
};
showFramework(root.dataset.framework);
document.addEventListener("click", (event) => {
  const tab = event.target.closest("[role=tab]");
  if (tab) chooseFramework(tab);
});
document.addEventListener("keydown", (event) => {
  const tab = event.target.closest("[role=tab]");
  if (!tab) return;
  const tabs = [...tab.parentElement.children];
  const here = tabs.indexOf(tab);
  const next = { ArrowRight: here + 1, ArrowLeft: here - 1, Home: 0, End: tabs.length - 1 }[event.key];
  if (next === undefined) return;
  event.preventDefault();
  const target = tabs[(next + tabs.length) % tabs.length];
  chooseFramework(target);
  target.focus();
});
window.addEventListener("storage", (event) => {
  if (event.key === "framework" && event.newValue) showFramework(event.newValue);
  if (event.key === "mode" && event.newValue) showMode(event.newValue);
});

// What scrolls sideways can be reached and scrolled with the keyboard -----------------------------
// (The page says so for all that may scroll; sections out of view are not measured until they come.)
const scrollers = document.querySelectorAll(".math-scroll, .table-scroll, .highlight pre, .output");
const resized = new ResizeObserver((entries) => {
  // First all the reading, then all the writing: mixed, each write would force a new layout.
  const scrolling = entries.map(({ target }) => target.scrollWidth > target.clientWidth);
  entries.forEach(({ target }, index) => {
    if (scrolling[index]) target.tabIndex = 0;
    else if (target !== document.activeElement) target.removeAttribute("tabindex");
  });
});
scrollers.forEach((scroller) => resized.observe(scroller));

// Answers that are typed --------------------------------------------------------------------------
// A number as people write it: 0.25, 0,25, .25, 25 %, 1/4, 2.5e-1, 2.5 * 10^-1, with spaces or not.
const readNumber = (text) => {
  const plain = text.trim().replace(/\s+/g, "").replace(/[\u2212\u2013]/g, "-").replace(",", ".")
    .replace(/[*x\u00d7\u00b7]10(?:\^|\*\*)\(?([+-]?\d+)\)?/i, "e$1").replace(/^10(?:\^|\*\*)\(?([+-]?\d+)\)?/, "1e$1");
  const parts = plain.match(/^([^/%]+)(?:\/([^/%]+))?(%)?$/);
  const number = (part) => (/^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(part) ? Number(part) : NaN);
  return parts ? number(parts[1]) / (parts[2] ? number(parts[2]) : 1) / (parts[3] ? 100 : 1) : NaN;
};
document.addEventListener("submit", (event) => {
  const form = event.target.closest(".quiz-form");
  if (!form) return;
  event.preventDefault();
  const verdict = form.querySelector(".quiz-verdict");
  const value = readNumber(form.querySelector("input").value);
  const answer = Number(form.dataset.answer), tolerance = Number(form.dataset.tolerance);
  const right = Math.abs(value - answer) <= tolerance + 1e-12 * Math.abs(answer);
  // A foreseen mistake may be decades smaller than the answer: it is met as closely in proportion.
  const share = answer ? tolerance / Math.abs(answer) : 0.01;
  const mistake = [...form.querySelectorAll(".quiz-mistake")].find((one) =>
    Math.abs(value - Number(one.dataset.value)) <= (share + 1e-12) * Math.abs(Number(one.dataset.value)));
  form.dataset.verdict = right ? "right" : "wrong";
  verdict.replaceChildren();
  if (!right && mistake) verdict.append(...[...mistake.childNodes].map((node) => node.cloneNode(true)));
  else verdict.textContent = right ? "Right." : Number.isNaN(value)
    ? "Please type a number, such as 0.25, 1/4, 25 % or 1e-7." : "No. Try again, or open the answer below.";
  if (right) form.parentElement.querySelector(".quiz-answer").open = true;
});

// Copy buttons on code ----------------------------------------------------------------------------
for (const block of document.querySelectorAll(".cell_input .highlight, article > * div[class*=highlight-] > .highlight")) {
  if (block.closest(".cell_output") || block.querySelector(".copy")) continue;
  const button = document.createElement("button");
  button.type = "button";
  button.className = "copy";
  button.textContent = "Copy";
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(block.querySelector("pre").innerText.trimEnd());
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  });
  if (navigator.clipboard) block.append(button);
}

// Links within the page -----------------------------------------------------------------------------
// A section out of view has an estimated height. Once those around the target are laid out, the
// target has moved: go there again, until it stays.
const landOnTarget = (tries = 4) => {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (!target || tries === 0) return;
  target.scrollIntoView({ behavior: "instant" });
  requestAnimationFrame(() => requestAnimationFrame(() => landOnTarget(tries - 1)));
};
window.addEventListener("hashchange", () => landOnTarget());

// Where the reader is, in "on this page" ------------------------------------------------------------
const sectionLinks = new Map();
for (const link of document.querySelectorAll(".on-page a[href^='#']")) {
  const section = document.getElementById(decodeURIComponent(link.hash.slice(1)));
  if (section) sectionLinks.set(section, link);
}
const inView = new Set();
const reader = new IntersectionObserver((entries) => {
  for (const entry of entries) inView[entry.isIntersecting ? "add" : "delete"](entry.target);
  const current = [...sectionLinks.keys()].filter((section) => inView.has(section)).pop();
  for (const [section, link] of sectionLinks) {
    if (section === current) link.setAttribute("aria-current", "location");
    else link.removeAttribute("aria-current");
  }
}, { rootMargin: "-15% 0px -75% 0px" });
sectionLinks.forEach((link, section) => reader.observe(section));

// Paper shows everything ----------------------------------------------------------------------------
let closed = [];
window.addEventListener("beforeprint", () => {
  closed = [...document.querySelectorAll("details:not([open])")];
  closed.forEach((details) => { details.open = true; });
});
window.addEventListener("afterprint", () => closed.forEach((details) => { details.open = false; }));
