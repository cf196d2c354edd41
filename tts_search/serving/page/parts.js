// Small parts of the page. Texts of a question or a model are anybody's: they reach the page through textContent alone.

const darkness = matchMedia("(prefers-color-scheme: dark)");
let palette = null;
darkness.addEventListener("change", () => { palette = null; });

export function make(tag, className, content) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (content !== undefined && content !== null) element.textContent = content;
  return element;
}

export function chip(value, digits = 2) {
  const element = make("span", "chip", value === null ? "–" : value.toFixed(digits));
  if (value === null) element.classList.add("none");
  else Object.assign(element.style, shade(value));
  return element;
}

export function shade(value) {
  palette ??= mix(getComputedStyle(document.documentElement).getPropertyValue("--scale").trim().split(/\s+/));
  return palette[Math.round(100 * Math.min(1, Math.max(0, value)))];
}

function mix(scale) {                   // a hundred and one colours, each with the ink that reads best on it
  const channel = (hex, i) => parseInt(hex.slice(1 + 2 * i, 3 + 2 * i), 16);
  return Array.from({ length: 101 }, (_, i) => {
    const place = (i / 100) * (scale.length - 1), low = Math.min(Math.floor(place), scale.length - 2);
    const rgb = [0, 1, 2].map((k) => Math.round(channel(scale[low], k) + (channel(scale[low + 1], k) - channel(scale[low], k)) * (place - low)));
    const [r, g, b] = rgb.map((v) => (v / 255 <= 0.04045 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4));
    return { background: `rgb(${rgb.join(" ")})`, color: 0.2126 * r + 0.7152 * g + 0.0722 * b > 0.179 ? "#000" : "#fff" };
  });
}

export function count(number) {
  return number.toLocaleString("en");
}

export function plural(number, word) {
  return `${count(number)} ${word}${number === 1 ? "" : "s"}`;
}
