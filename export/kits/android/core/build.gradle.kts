// Everything that needs no phone: the gate, the ring, the kit's description, the listener.
plugins {
    alias(libs.plugins.kotlin.jvm)
    alias(libs.plugins.kotlin.serialization)
}

kotlin {
    compilerOptions {
        jvmTarget = org.jetbrains.kotlin.gradle.dsl.JvmTarget.JVM_17
    }
}

java {
    sourceCompatibility = JavaVersion.VERSION_17
    targetCompatibility = JavaVersion.VERSION_17
}

dependencies {
    api(libs.serialization.json)
    testImplementation(libs.junit)
}

tasks.test {
    val kit = rootProject.layout.projectDirectory.dir("app/src/main/assets/kit")
    inputs.dir(kit)
    systemProperty("crykit.kit", kit.asFile.path)
}
