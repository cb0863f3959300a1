// Adapts Sphinx's search to this book. Loaded after searchtools.js.
"use strict";

// A page opened from disk may not fetch its neighbors, so excerpts are shown over http only.
if (location.protocol === "file:") DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;

// A formula is in the page twice (drawn, and as MathML with its source): keep the drawn one.
const plainText = Search.htmlToText;
Search.htmlToText = (html, anchor) => {
  const page = new DOMParser().parseFromString(html, "text/html");
  page.querySelectorAll(".katex-mathml").forEach((copy) => copy.remove());
  page.querySelectorAll(".turn, .actions, footer, .tab-title").forEach((node) => node.remove());
  return plainText(page.documentElement.outerHTML, anchor);
};
