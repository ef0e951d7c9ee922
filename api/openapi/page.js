"use strict";
for (const contents of document.querySelectorAll("nav details")) contents.open = !matchMedia("(max-width: 60rem)").matches;
for (const place of document.querySelectorAll(".origin")) place.textContent = location.origin;
for (const pre of document.querySelectorAll("pre")) {
  const block = document.createElement("div");
  const button = document.createElement("button");
  block.className = "block";
  button.type = "button";
  button.textContent = "Copy";
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(pre.textContent);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(pre);
      button.textContent = "Selected";
    }
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  });
  pre.replaceWith(block);
  block.append(pre, button);
}
