// What pages of the console do beyond showing their data: ages that grow, and copying.

function inWords(seconds) {
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 48 * 3600) return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
  return `${Math.floor(seconds / 86400)} d`;
}

// The server says how old a value was; since then time went on. Its clock alone counts.
const arrived = new WeakMap();

function letAgesGrow() {
  const now = performance.now();
  for (const element of document.querySelectorAll("[data-age]")) {
    if (!arrived.has(element)) arrived.set(element, now);
    const seconds = Number(element.dataset.age) + Math.floor((now - arrived.get(element)) / 1000);
    const words = inWords(seconds);
    if (element.textContent !== words) element.textContent = words;
  }
}

letAgesGrow();
setInterval(letAgesGrow, 1000);
document.addEventListener("htmx:afterSwap", letAgesGrow);

document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  if (!button) return;
  const source = document.getElementById(button.dataset.copy);
  try {
    await navigator.clipboard.writeText(source.textContent);
    button.textContent = "Copied";
  } catch {
    getSelection().selectAllChildren(source); // without the right to copy it is only marked
    button.textContent = "Press Ctrl-C";
  }
});
