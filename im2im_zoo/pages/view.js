// Controls of a view: they show, hide and clip pictures that are all in the page. Loads and sends nothing.
(() => {
  const viewer = document.querySelector(".viewer");
  const stage = viewer.querySelector(".stage");
  const all = (selector) => [...viewer.querySelectorAll(selector)];
  const control = (name) => viewer.querySelector(`[data-control="${name}"]`);
  const layer = (key) => stage.querySelector(`[data-layer="${key}"]`);
  const value = (name) => Number(control(name)?.value ?? 0);

  function showFrame() {
    const frame = value("time") * Number(viewer.dataset.planes) + value("z");
    const off = new Set(
      all("[data-channel-toggle]:not(:checked)").map((box) => box.dataset.layer + " " + box.dataset.channelToggle)
    );
    for (const image of stage.querySelectorAll("img")) {
      const place = image.parentElement.dataset.layer + " " + image.dataset.channel;
      image.hidden = Number(image.dataset.frame) !== frame || off.has(place);
    }
    for (const output of all("output")) {
      output.textContent = output.dataset.places.split(" ")[value(output.dataset.shows)];
    }
  }

  function showSplit() {
    const prediction = layer("image-1");
    if (!prediction) return;
    const split = value("split");
    prediction.style.clipPath = `inset(0 0 0 ${split}%)`;
    stage.querySelector(".divider").style.left = `${split}%`;
  }

  function showStyle() {
    for (const image of all(".image:not(.labels)")) image.style.filter = `brightness(${value("brightness")}%)`;
    for (const slider of all('[data-control="opacity"]')) layer(slider.dataset.layer + "-fill").style.opacity = slider.value / 100;
    for (const box of all("[data-toggle]")) layer(box.dataset.toggle).hidden = !box.checked;
    stage.classList.toggle("natural", control("natural").checked);
  }

  function showAll() {
    showFrame();
    showSplit();
    showStyle();
  }

  viewer.addEventListener("input", showAll);
  stage.addEventListener("pointerdown", (event) => drag(event));
  stage.addEventListener("pointermove", (event) => event.buttons && drag(event));
  stage.addEventListener("dragstart", (event) => event.preventDefault());
  function drag(event) {
    const slider = control("split");
    if (!slider) return;
    const box = stage.getBoundingClientRect();
    slider.value = (100 * (event.clientX - box.left)) / box.width;
    showSplit();
  }
  showAll();
})();
