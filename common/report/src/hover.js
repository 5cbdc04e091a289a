// Shows the value nearest to the pointer on every chart.
for (const svg of document.querySelectorAll("svg[data-hover]")) {
  const { x, y, text } = JSON.parse(svg.dataset.hover);
  const pointer = svg.querySelector(".pointer");
  const [line, dot] = pointer.children;
  const output = svg.parentElement.querySelector("output");
  const resting = output.textContent;
  svg.addEventListener("pointermove", (event) => {
    const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse()).x;
    let nearest = 0;
    x.forEach((position, index) => {
      if (Math.abs(position - at) < Math.abs(x[nearest] - at)) nearest = index;
    });
    line.setAttribute("x1", x[nearest]);
    line.setAttribute("x2", x[nearest]);
    dot.setAttribute("cx", x[nearest]);
    dot.setAttribute("cy", y[nearest]);
    output.textContent = text[nearest];
    pointer.removeAttribute("hidden");
  });
  svg.addEventListener("pointerleave", () => {
    pointer.setAttribute("hidden", "");
    output.textContent = resting;
  });
}
